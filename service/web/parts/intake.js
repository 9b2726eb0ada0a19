// Ways for images to come in: dropped files and folders, the clipboard, the file dialog, and the samples.

import { byId, element, say } from "/page/elements.js";
import { explainText } from "/page/errors.js";
import { addImages, on, state } from "/page/state.js";

const SAMPLES = [
  ["espresso", "a cup of coffee"],
  ["ladybug", "a ladybug on a leaf"],
  ["lemons", "two lemons"],
  ["mushroom", "a mushroom"],
  ["school-bus", "a school bus"],
  ["cat", "the face of a cat"],
];

export function startIntake() {
  acceptDrops();
  acceptPaste();
  byId("files").addEventListener("change", () => {
    addImages([...byId("files").files]);
    byId("files").value = ""; // so that the same file can be chosen again
  });
  byId("samples").append(...SAMPLES.map(([name, words]) => sampleButton(`/samples/${name}.jpg`, words)));
  on("images", () => {
    byId("intake").classList.toggle("compact", state.images.length > 0);
    byId("remark")?.remove();
  });
}

function sampleButton(address, words) {
  const button = element("button", { type: "button" }, element("img", { src: address, alt: `Sample: ${words}`, width: 96, height: 72 }));
  button.addEventListener("click", async () => {
    const response = await fetch(address).catch(() => null);
    if (!response?.ok) return announce("The sample could not be loaded. Check that the server runs.");
    addImages([new File([await response.blob()], address.split("/").pop(), { type: "image/jpeg" })]);
  });
  return element("li", {}, button);
}

// A remark about something that was not an image; it goes when the next image comes.
export function announce(words) {
  let note = byId("remark");
  if (!note) {
    note = element("p", { id: "remark", className: "notice" });
    note.setAttribute("role", "alert");
    byId("intake").before(note);
  }
  note.textContent = words;
}

function acceptDrops() {
  const setOver = (isOver) => document.body.classList.toggle("over", isOver);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    setOver(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) setOver(false); // left the window, not just one element
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    setOver(false);
    const text = textOf(event.dataTransfer);
    take(await filesOf(event.dataTransfer), text);
  });
}

function acceptPaste() {
  document.addEventListener("paste", (event) => {
    if (event.target.matches?.("input")) return; // the text is meant for the field
    take([...event.clipboardData.files], textOf(event.clipboardData));
  });
}

function textOf(transfer) {
  return transfer.getData("text/uri-list") || transfer.getData("text/plain");
}

function take(files, text) {
  if (files.length > 0) {
    addImages(files);
    if (files.length > 1) say(`${files.length} images were added.`);
    return;
  }
  announce(explainText(text) || "There was no image in it. Drop image files, or a folder of them.");
}

// Folders are walked; the list of items is read at once, because it is empty after the event.
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(walk))).flat();
}

async function walk(entry) {
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed)).catch(() => null);
    return file && !file.name.startsWith(".") ? [file] : [];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed)).catch(() => []);
    if (some.length === 0) return (await Promise.all(found.map(walk))).flat();
    found.push(...some); // a reader gives a hundred at a time
  }
}
