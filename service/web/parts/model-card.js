// The chosen model's card in words for people: what it is, what it knows, how good it is, and where it comes from.

import { byId, counted, element } from "/page/elements.js";
import { on, chosenModel } from "/page/state.js";

const MOST_LABELS = 300; // in the list at once; the search finds the others
const PRECISIONS = {
  fp32: "fp32: 32-bit numbers, as trained",
  fp16: "fp16: 16-bit numbers, for GPUs",
  int8: "int8: 8-bit integers, a quarter of the size",
};
const PROVIDERS = {
  CPUExecutionProvider: "CPU (CPUExecutionProvider)",
  CUDAExecutionProvider: "NVIDIA GPU (CUDAExecutionProvider)",
  TensorrtExecutionProvider: "NVIDIA GPU with TensorRT (TensorrtExecutionProvider)",
};

export function startModelCard() {
  on("models model", draw);
  byId("label-search").addEventListener("input", drawLabels);
}

function draw() {
  const model = chosenModel();
  byId("about-empty").hidden = Boolean(model);
  byId("labels-part").hidden = !model;
  if (!model) return;
  byId("about-title").textContent = `About the model ${model.name}`;
  const rows = facts(model).filter(([, value]) => value);
  byId("card").replaceChildren(...rows.map(([name, value]) => row(name, value)));
  drawLabels();
}

function row(name, value) {
  return element("div", {}, element("dt", { textContent: name }), element("dd", {}, ...[value].flat()));
}

function facts(model) {
  return [
    ["Network", network(model)],
    ["Trained on", model.dataset ?? model.published?.dataset ?? "not stated"],
    ["Accuracy", accuracy(model)],
    ["Calibration", calibration(model)],
    ["“Not sure”", confidence(model)],
    ["Precision", precision(model)],
    ["Runs on", PROVIDERS[model.provider] ?? model.provider],
    ["Made", made(model)],
    ["Weights", weights(model)],
    ["License", model.published?.licence ?? "not stated in the file"],
    ["File", [`version ${model.version}, SHA-256 `, element("code", { textContent: `${model.sha256.slice(0, 16)}…`, title: model.sha256 })]],
  ];
}

function network({ network, depth, preprocessing: { crop, shorter_side } }) {
  return `${network}, ${depth} layers deep. It sees the center ${crop[1]} × ${crop[0]} pixels of an image that was scaled to a shorter side of ${shorter_side}.`;
}

function accuracy({ accuracy, published }) {
  if (accuracy) {
    const { top1, top5, images, dataset } = accuracy;
    return `The best label is right for ${share(top1)} (± ${(100 * interval(top1, images)).toFixed(1)}) of the test images, and one of the best five for ${share(top5)}. Measured with this file on n = ${images.toLocaleString("en")} images: ${dataset}.`;
  }
  if (!published) return "not measured";
  return `${share(published.top1)} top-1, ${share(published.top5)} top-5 on ${published.dataset}, as published by ${published.said_by}; not measured here.`;
}

// Half of the 95% interval of a share.
function interval(part, images) {
  return 1.96 * Math.sqrt((part * (1 - part)) / images);
}

function calibration({ calibration }) {
  if (!calibration) return "not measured: a percentage may be too high or too low";
  const { expected_calibration_error: error, images } = calibration;
  return `A percentage differs from the share of right answers by ${share(error)} on average (n = ${images.toLocaleString("en")}). This holds for images like those of its training only.`;
}

function confidence({ confidence }) {
  if (!confidence) return "This model never says so: no threshold was measured.";
  const { auroc, auroc_interval: ends, known_images: known, compared_unknown_images: unknown } = confidence;
  const basis = `It accepts 95% of ${known.toLocaleString("en")} held-out images of its labels.`;
  if (auroc === undefined || auroc === null) return basis;
  return `${basis} It separates them from ${counted(unknown, "image")} of other things with an AUROC of ${auroc.toFixed(2)} (${ends.map((end) => end.toFixed(2)).join(" to ")}; 0.5 is chance, 1 is perfect).`;
}

function precision({ precision, precision_loss: loss }) {
  const name = PRECISIONS[precision] ?? precision;
  return loss ? `${name}. ${share(loss.agreement)} of ${counted(loss.images, "image")} keep the best label of fp32.` : name;
}

function made({ provenance: { created, recipe, seed, git_commit: commit } }) {
  const parts = [recipe && `recipe ${recipe}`, seed !== null && `seed ${seed}`, commit && `commit ${commit.slice(0, 10)}`];
  return [created.slice(0, 10), ...parts.filter(Boolean)].join(", ");
}

function weights({ published, provenance: { checkpoint_sha256: checkpoint } }) {
  if (published) return ["published as ", element("a", { href: published.url, rel: "noreferrer", textContent: published.name })];
  if (!checkpoint) return "random: the network is not trained";
  return ["trained with this project, checkpoint ", element("code", { textContent: `${checkpoint.slice(0, 16)}…` })];
}

function share(part) {
  return `${(100 * part).toFixed(1)}%`;
}

function drawLabels() {
  const labels = chosenModel()?.labels ?? [];
  const words = byId("label-search").value.trim().toLowerCase();
  const found = labels.filter((label) => label.toLowerCase().includes(words));
  byId("labels-title").textContent = `The ${counted(labels.length, "label")} of the model`;
  byId("labels").replaceChildren(...found.slice(0, MOST_LABELS).map((label) => element("li", { textContent: label })));
  byId("labels-count").textContent = labelCount(found.length, labels.length, words);
}

function labelCount(found, all, words) {
  if (words) return found ? `${found} of ${counted(all, "label")} match.` : "No label matches. An image of it gets a similar label, or “not sure”.";
  return all > MOST_LABELS ? `The first ${MOST_LABELS} of ${all}; search for the others.` : "";
}
