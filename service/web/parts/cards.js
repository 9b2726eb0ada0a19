// A card for each image. Above a hundred images only the cards near the window exist; padding stands for the others.

import { byId, element, percent } from "/page/elements.js";
import { on, select, state } from "/page/state.js";
import { best, headline, isUnsure } from "/page/verdict.js";
import { shownImages, startView } from "/page/view.js";

const ALL_AT_ONCE = 100;
const SPARE_ROWS = 2; // above and below the window
const THUMBNAIL_HEIGHT = 144; // px
const MOVES = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: "up", ArrowDown: "down", Home: "first", End: "last" };

let shown = []; // the images of the view, in its order
const made = new Map(); // image → its card
let frame = 0;

export function startCards() {
  startView();
  on("images view", drawSoon);
  on("image", (image) => {
    drawSoon();
    if (made.has(image)) fill(made.get(image), image);
  });
  on("selected", markSelected);
  on("removed", (images) => images.forEach(letGo));
  addEventListener("scroll", () => shown.length > ALL_AT_ONCE && drawSoon(), { passive: true });
  addEventListener("resize", drawSoon);
  byId("cards").addEventListener("keydown", move);
}

function drawSoon() {
  frame ||= requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  shown = shownImages();
  byId("gallery").hidden = state.images.length === 0;
  byId("none-shown").hidden = shown.length > 0;
  const { first, last, above, below } = part();
  const list = byId("cards");
  const hadFocus = list.contains(document.activeElement) && document.activeElement !== list;
  list.style.paddingTop = `${above}px`;
  list.style.paddingBottom = `${below}px`;
  arrange(list, shown.slice(first, last), first);
  if (hadFocus && !list.contains(document.activeElement)) list.focus({ preventScroll: true });
}

// Which of the shown images need a card, and the heights in place of the others.
function part() {
  const count = shown.length;
  if (count <= ALL_AT_ONCE) return { first: 0, last: count, above: 0, below: 0 };
  const { columns, height } = grid();
  const rows = Math.ceil(count / columns);
  const top = -byId("cards").getBoundingClientRect().top;
  const from = clamp(Math.floor(top / height) - SPARE_ROWS, 0, rows);
  const to = clamp(Math.ceil((top + innerHeight) / height) + SPARE_ROWS, from, rows);
  return { first: from * columns, last: Math.min(count, to * columns), above: from * height, below: (rows - to) * height };
}

function grid() {
  const style = getComputedStyle(byId("cards"));
  const columns = style.gridTemplateColumns.split(" ").length;
  return { columns, height: Number.parseFloat(style.gridAutoRows) + Number.parseFloat(style.rowGap) };
}

function clamp(number, least, most) {
  return Math.min(most, Math.max(least, number));
}

function arrange(list, images, first) {
  const kept = new Set(images);
  for (const [image, card] of made) {
    if (kept.has(image)) continue;
    card.remove();
    made.delete(image);
  }
  images.forEach((image, place) => {
    const card = made.get(image) ?? newCard(image);
    card.setAttribute("aria-setsize", shown.length);
    card.setAttribute("aria-posinset", first + place + 1);
    if (list.children[place] !== card) list.insertBefore(card, list.children[place] ?? null);
  });
  markSelected();
}

// One card

function newCard(image) {
  const thumbnail = element("span", { className: "thumbnail" });
  const lines = ["percent", "label", "name"].map((className) => element("span", { className }));
  const button = element("button", { type: "button" }, thumbnail, ...lines);
  button.addEventListener("click", () => open(image));
  const card = element("li", {}, button);
  made.set(image, card);
  fill(card, image);
  showThumbnail(thumbnail, image);
  return card;
}

function fill(card, image) {
  const certainty = image.phase === "answered" ? percent(best(image).probability) : "";
  card.className = `${image.phase}${isUnsure(image.answer) ? " unsure" : ""}`;
  card.querySelector(".label").textContent = headline(image);
  card.querySelector(".percent").textContent = certainty;
  card.querySelector(".name").textContent = image.name;
  card.firstChild.title = isUnsure(image.answer) ? `${image.name}: perhaps ${best(image).label}` : image.name;
}

async function showThumbnail(thumbnail, image) {
  if (!image.thumbnail) await makeThumbnail(image);
  if (image.thumbnail) thumbnail.replaceChildren(element("img", { src: image.thumbnail, alt: "" }));
  else thumbnail.textContent = "no preview";
}

// Small copies, because a browser would keep hundreds of photos decoded.
async function makeThumbnail(image) {
  const options = { resizeHeight: THUMBNAIL_HEIGHT, resizeQuality: "medium" };
  const bitmap = await createImageBitmap(image.file, options).catch(() => null);
  if (!bitmap) return;
  const canvas = element("canvas", { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/webp", 0.8));
  if (blob && state.images.includes(image) && !image.thumbnail) image.thumbnail = URL.createObjectURL(blob);
}

function letGo(image) {
  if (image.thumbnail) URL.revokeObjectURL(image.thumbnail);
  made.get(image)?.remove();
  made.delete(image);
  Object.assign(image, { thumbnail: null, file: null, sent: null });
}

// Selection

function open(image) {
  select(image);
  const { top, bottom } = byId("detail").getBoundingClientRect();
  if (bottom < 120 || top > innerHeight) byId("detail").scrollIntoView();
}

function markSelected() {
  const focusable = made.has(state.selected) ? state.selected : made.keys().next().value;
  for (const [image, card] of made) {
    card.firstChild.setAttribute("aria-current", String(image === state.selected));
    card.firstChild.tabIndex = image === focusable ? 0 : -1; // one stop of the Tab key for all cards
  }
}

function move(event) {
  const direction = MOVES[event.key];
  if (direction === undefined || shown.length === 0) return;
  event.preventDefault();
  const { columns } = grid();
  const place = shown.indexOf(state.selected);
  const target = { up: place - columns, down: place + columns, first: 0, last: shown.length - 1 }[direction] ?? place + direction;
  if (target >= 0 && target < shown.length) reveal(shown[target], target);
}

function reveal(image, place) {
  select(image);
  if (!made.has(image)) {
    const { columns, height } = grid();
    const top = byId("cards").getBoundingClientRect().top + scrollY + Math.floor(place / columns) * height;
    scrollTo({ top: top - innerHeight / 2 });
    draw();
  }
  made.get(image).firstChild.focus();
}
