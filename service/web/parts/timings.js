// Where the time of an answer went, as one stacked bar.

import { byId, element, milliseconds } from "/page/elements.js";

const NAMES = { upload: "upload and network", decode: "decode", queue: "queue", inference: "inference", other: "other" };

export function showTimings(answer) {
  byId("timings").hidden = !answer;
  if (!answer) return;
  const parts = partsOf(answer);
  const total = Object.values(parts).reduce((sum, ms) => sum + ms, 0);
  byId("total-time").textContent = milliseconds(total);
  byId("stack").replaceChildren(...Object.entries(parts).map(([step, ms]) => segment(step, ms)));
  byId("times").replaceChildren(...Object.entries(parts).map(([step, ms]) => entry(step, ms)));
}

// The server states its own steps; the rest of the round trip is the network and this browser.
function partsOf({ times, timings_ms }) {
  const { decode, queue, inference } = { ...timings_ms, ...times };
  const total = Math.min(times.total ?? decode + queue + inference, times.round_trip);
  const other = Math.max(0, total - decode - queue - inference);
  return { upload: Math.max(0, times.round_trip - total), decode, queue, inference, other };
}

function segment(step, ms) {
  const part = element("div", { className: `step ${step}` });
  part.style.flexGrow = ms;
  return part;
}

function entry(step, ms) {
  const swatch = element("span", { className: `swatch step ${step}` });
  return element("li", {}, swatch, ` ${NAMES[step]} ${milliseconds(ms)}`);
}
