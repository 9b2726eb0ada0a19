// The camera: a shutter that adds a photo to the images, and live labels, a few frames a second.

import { byId, element, percent, say } from "/page/elements.js";
import { explainFailure, explainPause } from "/page/errors.js";
import { pause } from "/page/queue.js";
import { classify } from "/page/service.js";
import { addImages, modelParameter } from "/page/state.js";
import { isUnsure } from "/page/verdict.js";

const FRAME_MS = 250; // at least, from one live frame to the next
const LIVE_WIDTH = 320; // px
const REFUSALS = {
  NotAllowedError: "This browser does not let the page use the camera. Allow it by the camera or lock sign beside the address, then try again.",
  NotFoundError: "This device has no camera. Choose images instead.",
  NotReadableError: "The camera is in use by another program. Close that program, then try again.",
};

let stream = null;
let isLive = false;
let photos = 0;

export function startCamera() {
  byId("camera-open").addEventListener("click", () => (byId("camera").hidden ? open() : close()));
  byId("camera-close").addEventListener("click", close);
  byId("shutter").addEventListener("click", takePhoto);
  byId("live").addEventListener("click", () => setLive(!isLive));
  addEventListener("pagehide", close);
}

async function open() {
  byId("camera").hidden = false;
  byId("camera-open").setAttribute("aria-expanded", "true");
  showTrouble(await startStream());
  if (stream) byId("shutter").focus();
}

// Returns why the camera shows nothing, or "".
async function startStream() {
  if (!navigator.mediaDevices) {
    return `Browsers allow the camera on https and on localhost only, and this page came from ${location.origin}. Choose images instead.`;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
    byId("video").srcObject = stream;
    await byId("video").play();
    return "";
  } catch (error) {
    stop();
    return REFUSALS[error.name] ?? "The camera could not be started. Choose images instead.";
  }
}

function showTrouble(words) {
  byId("camera-trouble").textContent = words;
  byId("camera-trouble").hidden = !words;
  byId("viewfinder").hidden = byId("shutter").hidden = byId("live").hidden = words !== "";
}

function close() {
  const hadFocus = byId("camera").contains(document.activeElement);
  stop();
  byId("camera").hidden = true;
  byId("camera-open").setAttribute("aria-expanded", "false");
  if (hadFocus) byId("camera-open").focus();
}

function stop() {
  setLive(false);
  stream?.getTracks().forEach((track) => track.stop());
  stream = byId("video").srcObject = null;
}

async function takePhoto() {
  const blob = await frame(byId("video").videoWidth);
  if (!blob) return;
  photos += 1;
  addImages([new File([blob], `camera-${photos}.jpg`, { type: "image/jpeg" })]);
  say("A photo was taken.");
}

async function frame(width) {
  const video = byId("video");
  if (!video.videoWidth) return null; // no frame has come yet
  const height = Math.round((width * video.videoHeight) / video.videoWidth);
  const canvas = element("canvas", { width, height });
  canvas.getContext("2d").drawImage(video, 0, 0, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
}

// Live labels

function setLive(on) {
  const begins = on && !isLive;
  isLive = on;
  byId("live").setAttribute("aria-pressed", String(on));
  byId("live-label").hidden = !on;
  if (begins) runLive();
}

async function runLive() {
  byId("live-label").textContent = "…";
  while (isLive) {
    const next = performance.now() + FRAME_MS;
    const blob = await frame(LIVE_WIDTH);
    const wait_ms = blob && isLive ? await label(blob) : 0;
    await new Promise((done) => setTimeout(done, Math.max(wait_ms, next - performance.now())));
  }
}

// Shows the label of a frame; returns how long to wait for the server.
async function label(blob) {
  const { answer, failure } = await classify(blob, "frame.jpg", modelParameter());
  if (!isLive) return 0;
  if (failure) {
    if (failure.kind === "key") pause(failure);
    byId("live-label").textContent = explainPause(failure)?.title ?? (failure.status ? explainFailure(failure).detail : "No answer.");
    return 1000 * (failure.retryAfter_s ?? 1);
  }
  const [{ label, probability }] = answer.predictions;
  byId("live-label").textContent = isUnsure(answer) ? `not sure (${label} ${percent(probability)})` : `${label} ${percent(probability)}`;
  return 0;
}
