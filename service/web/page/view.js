// Which images the cards show, and in which order.

import { byId } from "/page/elements.js";
import { emit, state } from "/page/state.js";
import { best, isUnsure } from "/page/verdict.js";

const KINDS = {
  all: () => true,
  sure: (image) => image.phase === "answered" && !isUnsure(image.answer),
  unsure: (image) => isUnsure(image.answer),
  failed: (image) => image.phase !== "answered",
};

const probability = (image) => best(image)?.probability ?? -1;
const ORDERS = {
  newest: () => 0, // the list's own order
  label: (a, b) => compare(best(a)?.label ?? "\uffff", best(b)?.label ?? "\uffff"),
  most: (a, b) => probability(b) - probability(a),
  least: (a, b) => probability(a) - probability(b),
  name: (a, b) => compare(a.name, b.name),
};

export function startView() {
  for (const id of ["filter", "show", "order"]) byId(id).addEventListener("input", () => emit("view"));
}

export function shownImages() {
  const words = byId("filter").value.trim().toLowerCase();
  const isShown = KINDS[byId("show").value];
  const found = state.images.filter((image) => isShown(image) && matches(image, words));
  return found.sort(ORDERS[byId("order").value]);
}

function matches(image, words) {
  return words === "" || `${image.name}\n${best(image)?.label ?? ""}`.toLowerCase().includes(words);
}

function compare(a, b) {
  return a.localeCompare(b, undefined, { numeric: true });
}
