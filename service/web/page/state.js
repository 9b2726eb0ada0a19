// The state of the page: the images, the selected one, the models and the view. Modules change it through these
// functions and draw what the events name; no module reads another one's elements.

const listeners = new Map();

export const state = {
  images: [], // newest first
  selected: null,
  models: [], // served versions that classify images
  model: "", // "name:version"; "" until the models are known
  limits: { max_image_bytes: 20 * 2 ** 20 },
  pause: null, // why the queue stands still: { kind, title, text, until }
};

export function on(events, listener) {
  for (const event of events.split(" ")) {
    if (!listeners.has(event)) listeners.set(event, []);
    listeners.get(event).push(listener);
  }
}

export function emit(event, detail) {
  for (const listener of listeners.get(event) ?? []) listener(detail);
}

let nextNumber = 1;

export function addImages(files) {
  const added = files.map((file) => ({
    number: nextNumber++,
    file,
    name: file.name || "image",
    sent: null, // the blob that the server gets; made by conversion.js
    note: "", // what the browser did to the file
    phase: "waiting", // then "asking", then "answered" or "failed"
    answer: null,
    failure: null,
    request: null,
    thumbnail: null,
  }));
  if (added.length === 0) return;
  state.images = [...added.slice().reverse(), ...state.images];
  emit("images");
  select(added[0]);
}

export function changeImage(image, properties) {
  Object.assign(image, properties);
  emit("image", image);
}

export function select(image) {
  state.selected = image;
  emit("selected", image);
}

export function removeAll() {
  const removed = state.images;
  state.images = [];
  for (const image of removed) image.request?.abort();
  emit("removed", removed);
  emit("images");
  select(null);
}

export function setPause(pause) {
  state.pause = pause;
  emit("pause", pause);
}

export function chosenModel() {
  return state.models.find((model) => idOf(model) === state.model) ?? null;
}

export function idOf({ name, version }) {
  return `${name}:${version}`;
}

// What a request has to name: nothing where there is one model, and no version where the newest one serves anyway.
export function modelParameter() {
  const model = chosenModel();
  if (!model || state.models.length === 1) return "";
  const versions = state.models.filter(({ name }) => name === model.name);
  return versions.length === 1 ? model.name : idOf(model);
}
