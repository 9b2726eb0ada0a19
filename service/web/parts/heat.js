// Where the network saw a label: class activation maps of /explain, laid over the part of the image that it saw.

import { byId } from "/page/elements.js";
import { explainFailure, explainPause } from "/page/errors.js";
import { explain } from "/page/service.js";
import { idOf } from "/page/state.js";

const SIDE = 192; // px of the canvas; CSS scales it
const COLOURS = [[40, 10, 120], [220, 50, 60], [255, 230, 60]]; // cold, middle, hot, as in the API's overlays
const explanations = new WeakMap(); // by the answer that they belong to: { maps } or { trouble }, as a promise

// The maps of an answer, fetched once. A failure is not kept, so that the next look asks again.
export function fetchMaps(image) {
  const { answer } = image;
  if (!explanations.has(answer)) {
    const request = ask(image);
    explanations.set(answer, request);
    request.then(({ trouble }) => trouble && explanations.delete(answer));
  }
  return explanations.get(answer);
}

async function ask({ sent, name, answer: { model } }) {
  const { answer, failure } = await explain(sent, name, idOf(model));
  if (answer) return { maps: new Map(answer.predictions.map(({ index, map }) => [index, map])) };
  const { detail } = failure.status ? explainFailure(failure) : { detail: explainPause({ kind: "unreachable" }).title };
  return { trouble: `There is no heat map: ${detail} Choose the label again to ask again.` };
}

export function drawMap(map) {
  const canvas = byId("heat");
  const rows = map.length;
  const columns = map[0].length;
  canvas.width = SIDE;
  canvas.height = Math.max(1, Math.round((SIDE * rows) / columns));
  const most = Math.max(1e-30, ...map.flat());
  const across = weights(columns, canvas.width);
  const down = weights(rows, canvas.height);
  const stretched = map.map((row) => across.map((parts) => parts.reduce((sum, [cell, weight]) => sum + weight * row[cell], 0)));
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(canvas.width, canvas.height);
  down.forEach((parts, y) => {
    for (let x = 0; x < canvas.width; x += 1) {
      const value = parts.reduce((sum, [cell, weight]) => sum + weight * stretched[cell][x], 0);
      paint(pixels.data, 4 * (y * canvas.width + x), Math.min(1, Math.max(0, value / most)));
    }
  });
  pen.putImageData(pixels, 0, 0);
}

// Cubic interpolation (Catmull-Rom): which cells make each pixel of a line, and their weights.
function weights(cells, length) {
  return Array.from({ length }, (_, pixel) => {
    const place = ((pixel + 0.5) * cells) / length - 0.5;
    const first = Math.floor(place);
    const t = place - first;
    const four = [-t + 2 * t ** 2 - t ** 3, 2 - 5 * t ** 2 + 3 * t ** 3, t + 4 * t ** 2 - 3 * t ** 3, -(t ** 2) + t ** 3];
    return four.map((weight, number) => [Math.min(cells - 1, Math.max(0, first - 1 + number)), weight / 2]);
  });
}

function paint(data, at, heat) {
  const [low, high, part] = heat < 0.5 ? [0, 1, heat * 2] : [1, 2, heat * 2 - 1];
  for (let channel = 0; channel < 3; channel += 1) {
    data[at + channel] = COLOURS[low][channel] + part * (COLOURS[high][channel] - COLOURS[low][channel]);
  }
  data[at + 3] = 217 * heat; // 85% at most, so that the image stays visible
}

// The frame

// The part that the network saw, in pixels of the image: left, top, right, bottom. As service/images/resizing.py has it.
export function partSeen({ width, height }, { shorter_side, crop }) {
  const portrait = width <= height;
  const newWidth = portrait ? shorter_side : Math.trunc((shorter_side * width) / height);
  const newHeight = portrait ? Math.trunc((shorter_side * height) / width) : shorter_side;
  const left = halfToEven((newWidth - crop[1]) / 2);
  const top = halfToEven((newHeight - crop[0]) / 2);
  const [across, down] = [width / newWidth, height / newHeight];
  return [left * across, top * down, (left + crop[1]) * across, (top + crop[0]) * down];
}

function halfToEven(number) {
  return number % 1 === 0.5 ? 2 * Math.round(number / 2) : Math.round(number);
}

export function place(element, [left, top, right, bottom], { width, height }) {
  const share = (part, whole) => `${(100 * part) / whole}%`;
  Object.assign(element.style, {
    left: share(left, width),
    top: share(top, height),
    width: share(right - left, width),
    height: share(bottom - top, height),
  });
}

export function startOpacity() {
  const set = () => {
    const value = byId("opacity").value;
    byId("opacity").setAttribute("aria-valuetext", `${value}%`);
    byId("heat").style.opacity = value / 100;
  };
  byId("opacity").addEventListener("input", set);
  set();
}

