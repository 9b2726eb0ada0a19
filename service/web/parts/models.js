// The list of models and the choice among them. Another choice sends all images again.

import { byId, element, say } from "/page/elements.js";
import { pause } from "/page/queue.js";
import { listModels } from "/page/service.js";
import { emit, idOf, on, state } from "/page/state.js";

export function startModels() {
  byId("model").addEventListener("change", () => choose(byId("model").value));
  on("resumed", () => state.models.length === 0 && load());
  on("model-gone", load);
  load();
}

async function load() {
  const { answer, failure } = await listModels();
  if (failure) {
    if (failure.kind !== "refused") pause(failure); // without the list the page asks the default model
    return;
  }
  state.models = answer.models.filter((model) => model.labels && model.state === "READY"); // others take no images
  state.limits = answer.limits ?? state.limits;
  drawChoice();
  emit("models");
  const isServed = state.models.some((model) => idOf(model) === state.model);
  if (isServed) return;
  const hadOne = state.model !== "";
  state.model = defaultModel();
  byId("model").value = state.model;
  emit(hadOne ? "model" : "models");
}

function defaultModel() {
  const model = state.models.find((each) => each.default) ?? state.models[0];
  return model ? idOf(model) : "";
}

function choose(id) {
  state.model = id;
  const again = state.images.length > 0 ? " All images are sent again." : "";
  say(`Model ${id.replace(":", ", version ")}.${again}`);
  emit("models");
  emit("model");
}

function drawChoice() {
  const severalVersions = new Set(
    state.models.map(({ name }) => name).filter((name, place, names) => names.indexOf(name) !== place),
  );
  const options = state.models.map((model) =>
    element("option", {
      value: idOf(model),
      textContent: severalVersions.has(model.name) ? `${model.name}, version ${model.version}` : model.name,
      selected: idOf(model) === state.model,
    }),
  );
  byId("model").replaceChildren(...options);
  byId("picker").hidden = options.length === 0;
}
