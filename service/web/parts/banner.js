// The banner that says why all images wait, with a countdown, and the form for an API key.

import { byId } from "/page/elements.js";
import { resume } from "/page/queue.js";
import { hasKey, useKey } from "/page/service.js";
import { emit, on, state } from "/page/state.js";

let ticking = null;

export function startBanner() {
  on("pause", draw);
  byId("banner-now").addEventListener("click", resume);
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(byId("key").value);
    byId("key").value = "";
    emit("key");
    resume();
  });
  byId("forget-key").addEventListener("click", () => {
    useKey("");
    emit("key");
    drawKept();
  });
  drawKept();
}

function draw(pause) {
  clearInterval(ticking);
  const isKey = pause?.kind === "key";
  byId("banner").hidden = !pause || isKey;
  byId("key-form").hidden = !isKey;
  drawKept();
  if (isKey) askForKey();
  else if (pause) countDown(pause);
}

function askForKey() {
  byId("key-trouble").textContent = hasKey() ? "It does not know the key that was used." : "";
  byId("key").focus();
}

function countDown({ title, text }) {
  byId("banner-title").textContent = title;
  byId("banner-text").textContent = text;
  tick();
  ticking = setInterval(tick, 250);
}

function tick() {
  const left_s = Math.max(0, Math.ceil((state.pause.until - Date.now()) / 1000));
  byId("countdown").textContent = `Next try in ${left_s} s.`;
}

function drawKept() {
  byId("key-kept").hidden = !hasKey();
}
