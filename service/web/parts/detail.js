// The selected image, large: its bars, the heat map of a label, and the part of it that the network saw.

import { byId, element, percent, say } from "/page/elements.js";
import { explainFailure } from "/page/errors.js";
import { drawMap, fetchMaps, partSeen, place, startOpacity } from "/parts/heat.js";
import { askAgain } from "/page/queue.js";
import { BARS } from "/page/service.js";
import { on, select, state } from "/page/state.js";
import { showTimings } from "/parts/timings.js";
import { headline, isUnsure, spoken } from "/page/verdict.js";
import { shownImages } from "/page/view.js";

const HOVER_MS = 120; // a pointer that only passes asks for nothing

let address = ""; // of the large image
let kept = null; // class index whose map stays
let looked = null; // class index under the pointer or the focus
let hovering = null;

export function startDetail() {
  on("selected", open);
  on("image", (image) => image === state.selected && draw(image));
  on("images view image", drawPosition);
  byId("again").addEventListener("click", () => askAgain(state.selected));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("heat-off").addEventListener("click", () => keep(null));
  byId("image").addEventListener("load", drawFrame);
  byId("image").addEventListener("error", () => setBroken(true));
  document.addEventListener("keydown", (event) => event.key === "Escape" && keep(null));
  startOpacity();
}

function open(image) {
  kept = looked = null;
  byId("detail").hidden = !image;
  URL.revokeObjectURL(address);
  address = "";
  if (image) draw(image);
  drawPosition();
}

function draw(image) {
  showImage(image);
  byId("headline").textContent = headline(image);
  byId("answer").setAttribute("aria-busy", String(image.phase === "waiting" || image.phase === "asking"));
  drawDoubt(image);
  drawTrouble(image.failure);
  drawBars(image);
  showTimings(image.answer);
  drawFacts(image.answer);
  drawFrame();
  showMap();
  if (image.answer) say(spoken(image));
}

// The image

let shownBlob = null;

function showImage({ name, file, sent, note }) {
  const blob = sent ?? file;
  byId("file-name").textContent = name;
  byId("conversion").textContent = note;
  byId("conversion").hidden = !note;
  if (address && blob === shownBlob) return;
  URL.revokeObjectURL(address);
  shownBlob = blob;
  address = URL.createObjectURL(blob);
  setBroken(false);
  byId("image").src = address;
  byId("image").alt = name;
}

function setBroken(isBroken) {
  byId("broken").hidden = !isBroken;
  byId("image-box").hidden = isBroken;
}

function drawFrame() {
  const [answer, box] = [state.selected?.answer, seenBox()];
  const { naturalWidth, naturalHeight } = byId("image");
  byId("image-box").classList.toggle("tiny", naturalWidth < 160);
  byId("image-box").classList.toggle("tall", naturalHeight > naturalWidth);
  byId("seen").hidden = !box || isWhole(box, answer.image);
  if (box) {
    place(byId("seen"), box, answer.image);
    place(byId("heat"), box, answer.image);
  }
  drawLegend();
}

// What the network saw of the selected image; null if unknown, or if the browser shows the image another way.
function seenBox() {
  const answer = state.selected?.answer;
  const card = answer && state.models.find(({ name, version }) => name === answer.model.name && version === answer.model.version);
  const { naturalWidth, naturalHeight } = byId("image");
  if (!card?.preprocessing || naturalWidth !== answer.image.width || naturalHeight !== answer.image.height) return null;
  return partSeen(answer.image, card.preprocessing);
}

function isWhole([left, top, right, bottom], { width, height }) {
  return left <= 0.5 && top <= 0.5 && right >= width - 0.5 && bottom >= height - 0.5;
}

// The answer

function drawDoubt({ answer }) {
  byId("doubt").hidden = !isUnsure(answer);
  byId("doubt").textContent = "The image resembles none of the model's labels well. These are its best guesses:";
}

function drawTrouble(failure) {
  byId("trouble").hidden = !failure;
  if (!failure) return;
  const { detail, advice, canRepeat } = explainFailure(failure);
  byId("trouble-detail").textContent = detail;
  byId("trouble-advice").textContent = advice;
  byId("again").hidden = !canRepeat;
}

function drawBars({ answer, failure }) {
  const bars = byId("bars");
  bars.hidden = Boolean(failure);
  bars.classList.toggle("unsure", isUnsure(answer));
  bars.replaceChildren(...(answer ? answer.predictions.map(newBar) : Array.from({ length: BARS }, blankBar)));
}

function newBar({ label, index, probability }) {
  const bar = element("span", { className: "bar" });
  bar.style.width = `${probability * 100}%`;
  const button = element(
    "button",
    { type: "button", title: `Heat map of ${label}` },
    element("span", { className: "label", textContent: label }),
    element("span", { className: "percent", textContent: percent(probability) }),
    element("span", { className: "track" }, bar),
  );
  button.dataset.index = index;
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => keep(kept === index ? null : index));
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && lookSoon(index));
  button.addEventListener("pointerleave", () => lookSoon(null));
  button.addEventListener("focus", () => button.matches(":focus-visible") && look(index));
  button.addEventListener("blur", () => look(null));
  return element("li", {}, button);
}

function blankBar() {
  const blank = element("li", { className: "blank" }, element("span", { className: "track" }));
  blank.setAttribute("aria-hidden", "true");
  return blank;
}

function drawFacts(answer) {
  const facts = answer ? [
    `${answer.model.name}, version ${answer.model.version}`,
    `${answer.model.provider}, ${answer.model.precision}`,
    `${answer.image.format}, ${answer.image.width} × ${answer.image.height} pixels`,
    ...(answer.image.truncated ? ["the end of the file is missing"] : []),
  ] : [];
  byId("facts").textContent = facts.join(" · ");
}

// The heat map: that of the label under the pointer or the focus, else the one that was chosen

function lookSoon(index) {
  clearTimeout(hovering);
  hovering = setTimeout(() => look(index), index === null ? 0 : HOVER_MS);
}

function look(index) {
  looked = index;
  showMap();
}

function keep(index) {
  kept = index;
  looked = null;
  showMap();
}

async function showMap() {
  const image = state.selected;
  const index = looked ?? kept;
  for (const button of byId("bars").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.index) === kept));
  }
  byId("opacity-row").hidden = kept === null || !image?.answer;
  if (index === null || !image?.answer || !seenBox()) return hideMap("");
  const { maps, trouble } = await fetchMaps(image);
  if (image !== state.selected || index !== (looked ?? kept)) return; // another label was chosen meanwhile
  if (!maps?.has(index)) return hideMap(trouble ?? "");
  drawMap(maps.get(index));
  byId("heat").hidden = false;
  byId("image-box").classList.add("heated");
  drawLegend();
}

function hideMap(trouble) {
  byId("heat").hidden = true;
  byId("image-box").classList.remove("heated");
  drawLegend(trouble);
}

function drawLegend(trouble = "") {
  const answer = state.selected?.answer;
  const box = seenBox();
  const shown = byId("heat").hidden ? null : answer?.predictions.find(({ index }) => index === (looked ?? kept));
  const where = box && !isWhole(box, answer.image) ? " The network saw only the part in the frame." : "";
  const hint = shown
    ? `Heat map of ${shown.label}: yellow parts speak most for it.`
    : "Point at a label, or choose it, to see which parts of the image speak for it.";
  const cannot = answer && !box && state.models.length > 0 && byId("image").complete ? "No heat map can be laid over the image, because this browser shows it in another size than the server." : "";
  byId("legend").textContent = trouble || cannot || (answer ? hint + where : "");
}

// From image to image

function step(by) {
  const images = shownImages();
  const next = images[images.indexOf(state.selected) + by];
  if (next) select(next);
}

function drawPosition() {
  const images = shownImages();
  const at = images.indexOf(state.selected);
  byId("stepper").hidden = state.images.length < 2;
  byId("position").textContent = at < 0 ? `${images.length} shown` : `${at + 1} of ${images.length}`;
  byId("previous").disabled = at <= 0;
  byId("next").disabled = at === images.length - 1;
}
