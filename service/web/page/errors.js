// Failures in plain words: what is wrong, and what to do. The server's own sentence comes first where it has one.

import { state } from "/page/state.js";
import { sizeInWords } from "/page/elements.js";

const ADVICE = {
  too_large: "Make the image smaller, for example by half its width, and add it again.",
  not_an_image: "Save the image as JPEG or PNG, and add it again.",
  bad_image: "Open the file in an image editor, save it again as JPEG or PNG, and add the new file.",
  no_file: "The file is empty; choose another one.",
  model_not_found: "Choose another model at the top of the page.",
  engine_failed: "Try another image. If that fails too, the person who runs the server finds the cause in its log.",
  internal_error: "Try again. If it fails again, the person who runs the server finds the cause in its log.",
  request_timeout: "The upload was too slow. Try again on a faster connection, or with a smaller image.",
  bad_host: "Open this page by the name that the server expects; the person who runs it knows the name.",
};

const BY_STATUS = {
  400: "The server did not understand the request.",
  403: "The server does not allow this.",
  404: "There is no such address on the server.",
  413: "The file is larger than the server accepts.",
  415: "This is not a JPEG, PNG or WebP file.",
  422: "The image cannot be decoded.",
  500: "The server failed on this image.",
};

const OWN = {
  slow: ["There was no answer within 60 seconds.", "The server may be busy or the connection slow. Try again."],
  gone: ["This browser can no longer read the file.", "It was moved, changed or deleted. Choose it again."],
  heic: [
    "This is a HEIC photo, and this browser cannot read HEIC.",
    "Open this page in Safari, or save the photo as JPEG. On an iPhone: Settings, Camera, Formats, Most Compatible.",
  ],
};

// Returns { detail, advice, canRepeat }.
export function explainFailure(failure) {
  if (failure.kind === "too large to decode") return tooLargeToDecode(failure);
  if (OWN[failure.kind]) {
    const [detail, advice] = OWN[failure.kind];
    return { detail, advice, canRepeat: failure.kind === "slow" };
  }
  const { status, code } = failure;
  const detail = failure.detail || BY_STATUS[status] || `The server answered with status ${status}.`;
  return { detail: plain(detail), advice: adviceFor(status, code, detail), canRepeat: status >= 500 || status === 408 };
}

function adviceFor(status, code, detail) {
  if (code === "not_an_image" && detail.includes(" convert ")) return ""; // the sentence has its own advice
  return ADVICE[code] ?? ADVICE[{ 413: "too_large", 415: "not_an_image", 422: "bad_image", 500: "internal_error" }[status]] ?? "Try another image.";
}

function tooLargeToDecode({ size }) {
  const limit = sizeInWords(state.limits.max_image_bytes);
  return {
    detail: `The file has ${sizeInWords(size)}; the server accepts ${limit}, and this browser cannot shrink it.`,
    advice: ADVICE.too_large,
    canRepeat: false,
  };
}

function plain(detail) {
  return detail.replaceAll("`", ""); // marks of code in the API's messages
}

// Why all images wait, for the banner. Returns { title, text }.
export function explainPause({ kind }) {
  return {
    busy: { title: "The server is busy.", text: "Your images wait here and are sent again by themselves." },
    starting: { title: "The server is starting.", text: "It loads its models. This page goes on when it is ready." },
    unreachable: {
      title: "The server cannot be reached.",
      text: "Check that it runs and that you are online. This page tries again by itself.",
    },
  }[kind];
}

const ADDRESS = /^(https?|ftp|file|blob):\S+$|^www\.\S+\.\S+$/i;

export function explainText(text) {
  const trimmed = text.trim();
  const shown = trimmed.length > 80 ? `${trimmed.slice(0, 77)}…` : trimmed;
  if (trimmed.startsWith("data:")) return "This is an image written as text. Save it as a file, then drop the file here.";
  if (ADDRESS.test(trimmed)) {
    return `This is an address, not an image: ${shown}. The server opens no addresses. Save the image, then drop the file here.`;
  }
  return trimmed ? "This is text, not an image. Copy the image itself, or drop its file here." : "";
}
