// What an answer comes to, in a few words; cards, the large view, and saved results share it.

import { percent } from "/page/elements.js";

export function isUnsure(answer) {
  return answer?.confident === false; // null: the model has no threshold
}

export function best(image) {
  return image.answer?.predictions[0] ?? null;
}

export function headline(image) {
  if (image.phase === "failed") return "No answer";
  if (image.phase !== "answered") return image.phase === "asking" ? "Looking…" : "Waiting…";
  return isUnsure(image.answer) ? "Not sure" : best(image).label;
}

export function spoken(image) {
  const labels = image.answer.predictions.map(({ label, probability }) => `${label} ${percent(probability)}`).join(", ");
  return `${image.name}: ${isUnsure(image.answer) ? "not sure; " : ""}${labels}`;
}
