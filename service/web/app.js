// The page. Each image keeps its own state (sent, answered or failed), and the screen is drawn from the selected
// image. A late response therefore only changes the image that it belongs to.

import { showHeat } from "/heat.js";

const KEPT_IMAGES = 24; // older ones are let go, and their memory with them
const PATIENCE_MS = 60_000;
const BARS = 5;
const NAMED_LABELS = 12;
const EXPLANATIONS = {
  // said only when the answer brings no words of its own, as from a proxy
  413: "The file is larger than the service accepts.",
  415: "This is not a JPEG, PNG or WebP file.",
  422: "The image cannot be decoded.",
  429: "You have sent too many images in a short time.",
  503: "The service is busy.",
};

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
let images = []; // newest first
let chosen = null;
let knownLabels = new Map(); // by the model's name

// An image's story

function newImage(file) {
  const image = { file, url: URL.createObjectURL(file), answer: null, failure: null, request: null };
  image.thumbnail = newThumbnail(image);
  return image;
}

async function addImages(files) {
  const added = files.map(newImage);
  if (added.length === 0) return;
  images = [...added, ...images];
  images.splice(Math.max(KEPT_IMAGES, added.length)).forEach(letGo);
  page.strip.replaceChildren(...images.map((image) => image.thumbnail));
  page.strip.hidden = images.length < 2;
  choose(added[0]);
  for (const image of added) await ask(image);
}

function letGo(image) {
  image.request?.abort();
  image.request = null;
  URL.revokeObjectURL(image.url);
}

async function ask(image) {
  if (!images.includes(image)) return; // let go before its turn
  image.request?.abort();
  const request = new AbortController();
  Object.assign(image, { request, answer: null, failure: null });
  draw(image);
  const outcome = await classify(image.file, wantedModel(), request);
  if (image.request !== request) return; // sent again or removed meanwhile
  Object.assign(image, { request: null }, outcome);
  draw(image);
}

// The service

async function classify(file, model, request) {
  const timer = setTimeout(() => request.abort(), PATIENCE_MS);
  const began = performance.now();
  const body = new FormData();
  body.append("file", file);
  try {
    const response = await fetch(classifyAddress(model), { method: "POST", body, signal: request.signal });
    if (!response.ok) return { failure: await readFailure(response) };
    const answer = await response.json();
    return { answer: { ...answer, round_trip_ms: performance.now() - began } };
  } catch {
    return { failure: unreachable(file, request.signal.aborted) };
  } finally {
    clearTimeout(timer);
  }
}

function classifyAddress(model) {
  return `/classify?${new URLSearchParams({ top_k: BARS, ...(model && { model }) })}`;
}

async function readFailure(response) {
  const problem = await response.json().catch(() => ({}));
  const detail = problem.detail || EXPLANATIONS[response.status] || `The service answered with status ${response.status}.`;
  const wait_s = Number.parseInt(response.headers.get("Retry-After"), 10);
  if (response.status < 500) return { detail, hint: "", again: false };
  return { detail, hint: wait_s > 0 ? `Try again in ${wait_s} s.` : "", again: true };
}

function unreachable(file, tooSlow) {
  const detail = tooSlow ? `No answer within ${PATIENCE_MS / 1000} s.` : "The service cannot be reached.";
  const hint = `${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MiB. Is the service running, and the file still there?`;
  return { detail, hint, again: true };
}

async function listModels() {
  const response = await fetch("/models");
  if (!response.ok) return;
  const models = (await response.json()).models.filter((model) => model.labels); // the others take no images
  page.model.replaceChildren(...models.map((model) => new Option(model.name, model.name, model.default, model.default)));
  page.choice.hidden = models.length < 2;
  knownLabels = new Map(models.map((model) => [model.name, model.labels]));
  drawKnown();
}

function wantedModel() {
  return page.choice.hidden ? "" : page.model.value; // where there is one model, it need not be named
}

// The screen

function choose(image) {
  chosen = image;
  page.zone.classList.remove("empty");
  page.broken.hidden = true;
  page.image.hidden = false;
  page.image.src = image.url;
  page.image.alt = image.file.name;
  images.forEach((other) => other.thumbnail.firstChild.setAttribute("aria-current", String(other === image)));
  draw(image);
}

function draw(image) {
  drawThumbnail(image);
  if (image !== chosen) return;
  const { answer, failure } = image;
  page.answer.setAttribute("aria-busy", String(!answer && !failure));
  page.headline.textContent = headline(image);
  page.bars.hidden = Boolean(failure);
  page.bars.classList.toggle("unsure", answer?.confident === false);
  page.bars.replaceChildren(...(answer ? answer.predictions.map(newBar) : blankBars()));
  drawTrouble(failure);
  page.facts.replaceChildren(...(answer ? facts(answer).flatMap(newFact) : []));
  page.curl.textContent = curlLine(image.file.name);
  if (answer) page.status.textContent = `${image.file.name}: ${spoken(answer)}`;
  showHeat(image);
}

function drawKnown() {
  const labels = knownLabels.get(page.model.value) ?? [];
  const named = labels.slice(0, NAMED_LABELS).join(", ") + (labels.length > NAMED_LABELS ? " …" : "");
  page.known.textContent = `This model knows ${labels.length} labels, and an image of anything else resembles one of them: ${named}`;
  page.known.hidden = labels.length === 0;
}

function headline({ answer, failure }) {
  if (failure) return "No answer";
  return answer ? verdict(answer) : "Looking…";
}

function verdict({ predictions, confident }) {
  return confident === false ? "Not sure" : predictions[0].label; // null: the model has no threshold
}

function drawTrouble(failure) {
  page.trouble.hidden = !failure;
  page.detail.textContent = failure?.detail ?? "";
  page.hint.textContent = failure?.hint ?? "";
  page.again.hidden = !failure?.again;
}

function newThumbnail(image) {
  const button = element("button", { type: "button" });
  button.append(element("img", { src: image.url, alt: "" }), element("span", {}));
  button.addEventListener("click", () => choose(image));
  const item = element("li", {});
  item.append(button);
  return item;
}

function drawThumbnail({ thumbnail, file, answer, failure }) {
  const [button, caption] = [thumbnail.firstChild, thumbnail.querySelector("span")];
  caption.textContent = answer ? verdict(answer) : failure ? "No answer" : "…";
  caption.classList.toggle("failed", Boolean(failure));
  button.title = file.name;
}

function newBar({ label, probability }) {
  const item = element("li", {});
  const track = element("div", { className: "track" });
  const bar = element("div", { className: "bar" });
  bar.style.width = `${probability * 100}%`;
  track.append(bar);
  item.append(
    element("span", { className: "label", textContent: label }),
    element("span", { className: "percent", textContent: percent(probability) }),
    track,
  );
  return item;
}

function blankBars() {
  return Array.from({ length: BARS }, () => {
    const item = element("li", { className: "blank" });
    item.setAttribute("aria-hidden", "true");
    item.append(element("div", { className: "track" }));
    return item;
  });
}

function facts({ model, image, timings_ms, round_trip_ms }) {
  const timings = Object.entries({ ...timings_ms, "round trip": round_trip_ms });
  return [
    ["Model", `${model.name}, version ${model.version}`],
    ["Runs on", `${model.provider}, ${model.precision}`],
    ["Image", `${image.format}, ${image.width} × ${image.height}${image.truncated ? ", its end is missing" : ""}`],
    ["Time", timings.map(([step, ms]) => `${step} ${ms.toFixed(1)}\u00a0ms`).join(", ")],
  ];
}

function newFact([name, value]) {
  return [element("dt", { textContent: name }), element("dd", { textContent: value })];
}

function spoken({ predictions, confident }) {
  const labels = predictions.map(({ label, probability }) => `${label} ${percent(probability)}`).join(", ");
  return confident === false ? `not sure; ${labels}` : labels;
}

function percent(probability) {
  if (probability < 0.001) return "< 0.1%";
  return probability > 0.999 ? "> 99.9%" : `${(probability * 100).toFixed(1)}%`;
}

function curlLine(fileName) {
  const plain = /^[\w.-]+$/.test(fileName);
  const field = plain ? `file=@${fileName}` : quoted(`file=@"${fileName.replace(/["\\]/g, "\\$&")}"`);
  const model = wantedModel() && `?model=${encodeURIComponent(wantedModel())}`;
  const address = `${location.origin}/classify${model}`;
  return `curl -F ${field} ${model ? quoted(address) : address}`;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`; // as a POSIX shell reads it
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

// The reader's hands

function acceptDrops() {
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    page.zone.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) page.zone.classList.remove("over"); // left the window, not just one element
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    page.zone.classList.remove("over");
    addImages([...event.dataTransfer.files]);
  });
}

function acceptPicks() {
  page.files.addEventListener("change", () => {
    addImages([...page.files.files]);
    page.files.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => addImages([...event.clipboardData.files]));
}

function acceptButtons() {
  page.again.addEventListener("click", () => ask(chosen));
  page.model.addEventListener("change", () => {
    drawKnown();
    if (chosen) ask(chosen);
  });
  page.image.addEventListener("error", () => {
    page.image.hidden = true;
    page.broken.hidden = false;
  });
  page.copy.hidden = !navigator.clipboard; // browsers have it on localhost and under HTTPS only
  page.copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(page.curl.textContent);
    page.status.textContent = "Copied";
  });
}

page.zone.classList.add("empty");
page.bars.replaceChildren(...blankBars());
page.curl.textContent = curlLine("photo.jpg");
acceptDrops();
acceptPicks();
acceptButtons();
listModels().catch(() => {}); // without the list the page asks the default model
