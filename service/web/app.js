// The page. Each picture keeps its own story (asked, answered or failed) and the screen is always drawn from the
// picture that is chosen, so a late answer can only ever reach the picture that it belongs to.

import { showHeat } from "/heat.js";

const KEPT_PICTURES = 24; // older ones are let go, and their memory with them
const PATIENCE_MS = 60_000;
const BARS = 5;
const NAMED_LABELS = 12;
const EXPLANATIONS = {
  // said only when the answer brings no words of its own, as from a proxy
  413: "The file is larger than the service accepts.",
  415: "This is not a JPEG, PNG or WebP file.",
  422: "The picture cannot be decoded.",
  503: "The service is busy.",
};

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
let pictures = []; // newest first
let chosen = null;
let knownLabels = new Map(); // by the model's name

// A picture's story

function newPicture(file) {
  const picture = { file, url: URL.createObjectURL(file), answer: null, failure: null, request: null };
  picture.thumbnail = newThumbnail(picture);
  return picture;
}

async function addPictures(files) {
  const added = files.map(newPicture);
  if (added.length === 0) return;
  pictures = [...added, ...pictures];
  pictures.splice(Math.max(KEPT_PICTURES, added.length)).forEach(letGo);
  page.strip.replaceChildren(...pictures.map((picture) => picture.thumbnail));
  page.strip.hidden = pictures.length < 2;
  choose(added[0]);
  for (const picture of added) await ask(picture);
}

function letGo(picture) {
  picture.request?.abort();
  picture.request = null;
  URL.revokeObjectURL(picture.url);
}

async function ask(picture) {
  if (!pictures.includes(picture)) return; // let go before its turn
  picture.request?.abort();
  const request = new AbortController();
  Object.assign(picture, { request, answer: null, failure: null });
  draw(picture);
  const outcome = await classify(picture.file, wantedModel(), request);
  if (picture.request !== request) return; // asked again meanwhile, or let go
  Object.assign(picture, { request: null }, outcome);
  draw(picture);
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
  const models = (await response.json()).models.filter((model) => model.labels); // the others take no pictures
  page.model.replaceChildren(...models.map((model) => new Option(model.name, model.name, model.default, model.default)));
  page.choice.hidden = models.length < 2;
  knownLabels = new Map(models.map((model) => [model.name, model.labels]));
  drawKnown();
}

function wantedModel() {
  return page.choice.hidden ? "" : page.model.value; // where there is one model, it need not be named
}

// The screen

function choose(picture) {
  chosen = picture;
  page.zone.classList.remove("empty");
  page.broken.hidden = true;
  page.picture.hidden = false;
  page.picture.src = picture.url;
  page.picture.alt = picture.file.name;
  pictures.forEach((other) => other.thumbnail.firstChild.setAttribute("aria-current", String(other === picture)));
  draw(picture);
}

function draw(picture) {
  drawThumbnail(picture);
  if (picture !== chosen) return;
  const { answer, failure } = picture;
  page.answer.setAttribute("aria-busy", String(!answer && !failure));
  page.headline.textContent = headline(picture);
  page.bars.hidden = Boolean(failure);
  page.bars.classList.toggle("unsure", answer?.confident === false);
  page.bars.replaceChildren(...(answer ? answer.predictions.map(newBar) : blankBars()));
  drawTrouble(failure);
  page.facts.replaceChildren(...(answer ? facts(answer).flatMap(newFact) : []));
  page.curl.textContent = curlLine(picture.file.name);
  if (answer) page.status.textContent = `${picture.file.name}: ${spoken(answer)}`;
  showHeat(picture);
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

function newThumbnail(picture) {
  const button = element("button", { type: "button" });
  button.append(element("img", { src: picture.url, alt: "" }), element("span", {}));
  button.addEventListener("click", () => choose(picture));
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
    addPictures([...event.dataTransfer.files]);
  });
}

function acceptPicks() {
  page.files.addEventListener("change", () => {
    addPictures([...page.files.files]);
    page.files.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => addPictures([...event.clipboardData.files]));
}

function acceptButtons() {
  page.again.addEventListener("click", () => ask(chosen));
  page.model.addEventListener("change", () => {
    drawKnown();
    if (chosen) ask(chosen);
  });
  page.picture.addEventListener("error", () => {
    page.picture.hidden = true;
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
