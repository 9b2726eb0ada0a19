// Where the network saw a label: the small maps of /explain, scaled over the image that the reader chose.

const PATIENCE_MS = 60_000;
const LONGEST_SIDE = 512; // of the canvas; CSS scales it to the image
const OUTSIDE = "rgb(0 0 0 / 50%)"; // over what the network did not see

const [row, select, canvas, note, image, bars, status] = ["where", "map", "heat", "legend", "image", "bars", "status"].map(
  (id) => document.getElementById(id),
);
const stories = new WeakMap(); // by the answer that they belong to
let shown = null; // the image on the screen

export function showHeat(entry) {
  shown = entry;
  const { answer } = entry;
  row.hidden = !answer;
  canvas.hidden = note.hidden = true;
  if (!answer) return;
  if (!stories.has(answer)) stories.set(answer, { index: null, request: null, explanation: null, trouble: "" });
  const options = answer.predictions.map(({ label, index }) => new Option(label, index));
  select.replaceChildren(new Option("none", ""), ...options);
  update(entry);
}

async function chooseMap() {
  const entry = shown;
  const story = stories.get(entry.answer);
  Object.assign(story, { index: select.value === "" ? null : Number(select.value), trouble: "" });
  if (story.index !== null && !story.explanation) {
    story.request ??= explain(entry); // one, however often another label is chosen meanwhile
    Object.assign(story, await story.request, { request: null });
  }
  await update(entry);
}

// The service

async function explain({ file, answer: { model } }) {
  const body = new FormData();
  body.append("file", file);
  const address = `/explain?${new URLSearchParams({ model: `${model.name}:${model.version}` })}`;
  try {
    const response = await fetch(address, { method: "POST", body, signal: AbortSignal.timeout(PATIENCE_MS) });
    if (response.ok) return { explanation: await response.json() };
    const { detail } = await response.json().catch(() => ({}));
    return { index: null, trouble: detail || `The service answered with status ${response.status}.` };
  } catch {
    return { index: null, trouble: "The service gave no heat map; choose a label to try again." };
  }
}

// The screen

async function update(entry) {
  const { index, explanation, trouble } = stories.get(entry.answer);
  if (shown !== entry) return;
  select.value = index ?? "";
  const found = explanation?.predictions.find((prediction) => prediction.index === index);
  const isDrawn = Boolean(found) && (await drawMap(found, explanation));
  if (shown?.answer !== entry.answer || stories.get(entry.answer).index !== index) return; // chosen anew meanwhile
  canvas.hidden = !isDrawn;
  note.textContent = found ? legend(found, explanation, isDrawn) : trouble;
  note.hidden = !note.textContent;
  if (note.textContent) status.textContent = note.textContent;
}

function legend({ label }, { crop, image: { width, height } }, isDrawn) {
  if (!isDrawn) return "This browser does not show the image as the network saw it, so no map can be laid over it.";
  const isWhole = crop[0] <= 0 && crop[1] <= 0 && crop[2] >= width && crop[3] >= height;
  return `What speaks for ${label}: yellow most, red less.${isWhole ? "" : " The network did not see the dark border."}`;
}

async function drawMap({ png }, { crop, image: { width, height } }) {
  const map = Object.assign(new Image(), { src: png });
  await Promise.all([map.decode(), image.decode().catch(() => {})]);
  if (image.naturalWidth !== width || image.naturalHeight !== height) return false; // broken, or turned another way
  const scale = LONGEST_SIDE / Math.max(width, height);
  const [left, top, right, bottom] = crop.map((edge) => edge * scale);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  pen.fillStyle = OUTSIDE;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.clearRect(left, top, right - left, bottom - top);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(map, left, top, right - left, bottom - top);
  return true;
}

// The reader's hands

select.addEventListener("change", chooseMap);
bars.addEventListener("click", (event) => {
  const place = [...bars.children].indexOf(event.target.closest("li"));
  if (row.hidden || place < 0) return;
  select.selectedIndex = place + 1;
  chooseMap();
});
new ResizeObserver(() => {
  canvas.style.width = `${image.clientWidth}px`;
  canvas.style.height = `${image.clientHeight}px`;
}).observe(image);
