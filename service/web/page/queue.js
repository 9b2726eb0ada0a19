// The upload queue. A few images are sent at once. When the server is busy, starts or cannot be reached, all
// images wait, and the queue goes on by itself; no image is lost.

import { prepare, shrink } from "/page/conversion.js";
import { explainPause } from "/page/errors.js";
import { classify } from "/page/service.js";
import { changeImage, emit, modelParameter, on, setPause, state } from "/page/state.js";

const MOST_AT_ONCE = 4;
const LONGEST_WAIT_S = 30;

let atOnce = MOST_AT_ONCE; // one after a pause; grows with each answer
let active = 0;
let pauses = 0; // since the last answer; each waits longer than the one before
let timer = null;

export function startQueue() {
  on("images", goOn);
  on("model", askAllAgain);
  on("removed", () => state.pause?.kind === "busy" && resume());
}

export function askAgain(image) {
  image.request?.abort();
  changeImage(image, { phase: "waiting", answer: null, failure: null, request: null });
  goOn();
}

function askAllAgain() {
  for (const image of state.images) {
    image.request?.abort();
    Object.assign(image, { phase: "waiting", answer: null, failure: null, request: null });
  }
  emit("images"); // goes on
  emit("selected", state.selected);
}

function goOn() {
  while (!state.pause && active < atOnce) {
    const image = nextWaiting();
    if (!image) return;
    work(image);
  }
}

function nextWaiting() {
  if (state.selected?.phase === "waiting") return state.selected; // the one that is looked at comes first
  return state.images.findLast(({ phase }) => phase === "waiting");
}

async function work(image) {
  active += 1;
  const request = new AbortController();
  changeImage(image, { phase: "asking", request });
  const outcome = await ask(image, request);
  active -= 1;
  if (image.request === request) settle(image, outcome); // else removed, or sent again meanwhile
  goOn();
}

async function ask(image, request) {
  const prepared = image.sent ? image : await prepare(image.file);
  if (prepared.failure) return prepared;
  keep(image, request, prepared);
  const first = await classify(prepared.sent, image.name, modelParameter(), request.signal);
  if (first.failure?.kind === "unreachable" && !(await isReadable(prepared.sent))) return { failure: { kind: "gone" } };
  if (first.failure?.kind !== "refused" || image.note) return first;
  const copy = await shrink(image.file, first.failure);
  if (!copy) return first;
  keep(image, request, copy);
  return classify(copy.sent, image.name, modelParameter(), request.signal);
}

function keep(image, request, { sent, note }) {
  if (image.request === request && image.sent !== sent) changeImage(image, { sent, note });
}

// A file that was deleted after it was chosen fails like a broken connection.
async function isReadable(file) {
  return file.slice(0, 1).arrayBuffer().then(() => true, () => false);
}

function settle(image, { answer, failure }) {
  if (failure && ["busy", "starting", "unreachable", "key"].includes(failure.kind)) {
    changeImage(image, { phase: "waiting", request: null });
    pause(failure);
    return;
  }
  if (answer) {
    pauses = 0;
    atOnce = Math.min(MOST_AT_ONCE, atOnce + 1);
  }
  changeImage(image, { phase: answer ? "answered" : "failed", request: null, answer: answer ?? null, failure: failure ?? null });
  if (failure?.code === "model_not_found") emit("model-gone");
}

// Pauses

export function pause(failure) {
  atOnce = 1;
  if (state.pause) return;
  if (failure.kind === "key") {
    setPause({ kind: "key" });
    return;
  }
  pauses += 1;
  const wait_s = failure.retryAfter_s ?? Math.min(LONGEST_WAIT_S, 2 ** (pauses - 1));
  setPause({ kind: failure.kind, ...explainPause(failure), until: Date.now() + 1000 * wait_s });
  timer = setTimeout(resume, 1000 * wait_s);
}

export function resume() {
  clearTimeout(timer);
  setPause(null);
  emit("resumed");
  goOn();
}
