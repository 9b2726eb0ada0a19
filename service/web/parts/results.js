// The progress of all images, and their results as files.

import { byId, counted, saveFile, say } from "/page/elements.js";
import { explainFailure } from "/page/errors.js";
import { on, removeAll, state } from "/page/state.js";
import { shownImages } from "/page/view.js";

const COLUMNS = ["file", "model", "version", "confident", "label", "probability", "label_2", "probability_2", "label_3",
  "probability_3", "label_4", "probability_4", "label_5", "probability_5", "error"]; // prettier-ignore
const FORMULA = /^[=+\-@\t\r]/; // a spreadsheet would run it

let wasDone = true;

export function startResults() {
  on("images image", drawProgress);
  byId("save-csv").addEventListener("click", () => saveFile("results.csv", "text/csv", asCsv(shownImages())));
  byId("save-json").addEventListener("click", () => saveFile("results.json", "application/json", asJson(shownImages())));
  byId("clear").addEventListener("click", () => {
    removeAll();
    byId("files").focus();
  });
}

function drawProgress() {
  const total = state.images.length;
  const done = state.images.filter(({ phase }) => phase === "answered" || phase === "failed").length;
  const failed = state.images.filter(({ phase }) => phase === "failed").length;
  const isDone = done === total;
  byId("progress").textContent = isDone ? counted(total, "image") : `${done} of ${counted(total, "image")}`;
  byId("gallery").classList.toggle("single", total < 2);
  Object.assign(byId("done"), { max: Math.max(1, total), value: done, hidden: isDone });
  if (isDone && !wasDone && total > 1) {
    say(`All ${total} images are done.${failed ? ` ${counted(failed, "image")} got no answer.` : ""}`);
  }
  wasDone = isDone;
}

function asJson(images) {
  return `${JSON.stringify(images.map(record), null, 2)}\n`;
}

function record({ name, answer, failure, note }) {
  const conversion = note ? { conversion: note } : {};
  if (!answer) return { file: name, ...conversion, error: failure ? explainFailure(failure).detail : "no answer yet" };
  const { times, ...document } = answer; // the times are the page's own
  return { file: name, ...conversion, ...document };
}

function asCsv(images) {
  return [COLUMNS, ...images.map(row)].map((cells) => `${cells.map(quoted).join(",")}\r\n`).join("");
}

function row(image) {
  const { file, model, confident, predictions, error } = record(image);
  if (error) return [file, ...Array.from({ length: COLUMNS.length - 2 }, () => ""), error];
  const best = predictions.flatMap(({ label, probability }) => [label, probability]);
  const padding = Array.from({ length: COLUMNS.length - 5 - best.length }, () => "");
  return [file, model.name, model.version, confident ?? "", ...best, ...padding, ""];
}

function quoted(cell) {
  const text = FORMULA.test(cell) ? `'${cell}` : String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
