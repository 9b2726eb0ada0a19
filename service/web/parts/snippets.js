// The request of the page as code to copy: curl, Python and JavaScript.

import { byId } from "/page/elements.js";
import { hasKey } from "/page/service.js";
import { modelParameter, on, state } from "/page/state.js";

const LANGUAGES = { "tab-curl": curl, "tab-python": python, "tab-javascript": javascript };
const SHOWN_MS = 4000;

let chosen = "tab-curl";
let fading = null;

export function startSnippets() {
  for (const id of Object.keys(LANGUAGES)) byId(id).addEventListener("click", () => choose(id));
  document.querySelector(".tabs").addEventListener("keydown", move);
  byId("copy").addEventListener("click", copy);
  on("selected models model key pause", draw);
  draw();
}

function choose(id) {
  chosen = id;
  for (const each of Object.keys(LANGUAGES)) {
    byId(each).setAttribute("aria-selected", String(each === id));
    byId(each).tabIndex = each === id ? 0 : -1;
  }
  byId("snippet").setAttribute("aria-labelledby", id);
  draw();
}

function move(event) {
  const ids = Object.keys(LANGUAGES);
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  choose(ids[(ids.indexOf(chosen) + by + ids.length) % ids.length]);
  byId(chosen).focus();
}

function draw() {
  const model = modelParameter();
  const address = `${location.origin}/classify${model && `?${new URLSearchParams({ model })}`}`;
  byId("snippet").textContent = LANGUAGES[chosen](state.selected?.name ?? "photo.jpg", address, hasKey());
  byId("snippet-note").hidden = !hasKey();
  byId("copied").textContent = "";
}

async function copy() {
  const isCopied = await copyText(byId("snippet").textContent);
  byId("copied").textContent = isCopied ? "✓ Copied" : "This browser does not allow it. The text is selected: press Ctrl+C.";
  clearTimeout(fading);
  fading = setTimeout(() => (byId("copied").textContent = ""), SHOWN_MS);
}

// Browsers have the clipboard on https and localhost only; elsewhere the old way is left.
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, selectSnippet);
  selectSnippet();
  return document.execCommand("copy");
}

function selectSnippet() {
  getSelection().selectAllChildren(byId("snippet"));
  return false;
}

function curl(name, address, needsKey) {
  const isPlain = /^[\w.-]+$/.test(name);
  const field = isPlain ? `file=@${name}` : quoted(`file=@"${name.replace(/["\\]/g, "\\$&")}"`);
  const key = needsKey ? ' -H "X-Api-Key: $RESNET_API_KEY"' : "";
  return `curl -F ${field}${key} ${address.includes("?") ? quoted(address) : address}`;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`; // as a POSIX shell reads it
}

function python(name, address, needsKey) {
  const headers = needsKey ? ', {"X-Api-Key": os.environ["RESNET_API_KEY"]}' : "";
  return `import json, ${needsKey ? "os, " : ""}urllib.request

with open(${JSON.stringify(name)}, "rb") as file:
    image = file.read()
request = urllib.request.Request(${JSON.stringify(address)}, image${headers})
with urllib.request.urlopen(request) as response:
    answer = json.load(response)
for best in answer["predictions"]:
    print(f"{best['probability']:6.1%}  {best['label']}")`;
}

function javascript(name, address, needsKey) {
  const headers = needsKey ? `\n  headers: { "X-Api-Key": process.env.RESNET_API_KEY },` : "";
  return `import { readFile } from "node:fs/promises"; // Node 18 or newer, as a file .mjs

const response = await fetch(${JSON.stringify(address)}, {
  method: "POST",${headers}
  body: await readFile(${JSON.stringify(name)}),
});
const answer = await response.json();
if (!response.ok) throw new Error(answer.detail);
for (const { label, probability } of answer.predictions) {
  console.log(\`\${(100 * probability).toFixed(1)}%  \${label}\`);
}`;
}
