// What the browser does to a file before it is sent. JPEG, PNG and WebP within the limits are sent as they are.

import { state } from "/page/state.js";
import { sizeInWords } from "/page/elements.js";

const SHRUNK_SIDE = 2048; // px; networks see a few hundred
const LEAST_SIDE = 64; // px
const JPEG_QUALITY = 0.92;
const LARGE_PIXELS = 4_000_000; // above, a copy is a JPEG; a refused image above it may be over a limit on pixels
const HEADS = [
  ["JPEG", /^\xff\xd8\xff/],
  ["PNG", /^\x89PNG/],
  ["WebP", /^RIFF....WEBP/s],
  ["GIF", /^GIF8/],
  ["BMP", /^BM/],
  ["AVIF", /^....ftypavi[fs]/s],
  ["HEIC", /^....ftyp(hei|hev|mif|msf)/s],
  ["TIFF", /^(II\*\0|MM\0\*)/],
  ["ICO", /^\0\0\x01\0/],
];
const ACCEPTED = ["JPEG", "PNG", "WebP"];

// Returns { sent, note } or { failure }. A file of a format that is not in HEADS is sent; the server names it.
export async function prepare(file) {
  let format;
  try {
    format = await formatOf(file);
  } catch {
    return { failure: { kind: "gone" } };
  }
  const isAccepted = ACCEPTED.includes(format);
  const fits = file.size <= state.limits.max_image_bytes;
  if (isAccepted && fits) return { sent: file, note: "" };
  const reason = isAccepted ? `The file has ${sizeInWords(file.size)}, more than the server accepts` : `The file is ${format ?? "of an unusual format"}`;
  const copy = format === null && fits ? null : await copyOf(file, reason, { shrinks: !fits });
  if (copy) return copy;
  if (format === "HEIC") return { failure: { kind: "heic" } };
  return fits ? { sent: file, note: "" } : { failure: { kind: "too large to decode", size: file.size } };
}

// A smaller copy of an image that the server refused for its size, else null.
export async function shrink(file, { code }) {
  if (!["too_large", "bad_image"].includes(code)) return null;
  const copy = await copyOf(file, "The server did not take the file at its size", { shrinks: true });
  return copy && (code === "too_large" || copy.pixels > LARGE_PIXELS) ? copy : null;
}

async function formatOf(file) {
  const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  return HEADS.find(([, pattern]) => pattern.test(head))?.[0] ?? null;
}

async function copyOf(file, reason, { shrinks }) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return null;
  const [pixels, longest] = [bitmap.width * bitmap.height, Math.max(bitmap.width, bitmap.height)];
  const isSmaller = shrinks || pixels > LARGE_PIXELS;
  let side = isSmaller ? Math.min(longest, SHRUNK_SIDE) : longest;
  let copy = await encode(bitmap, side / longest, isSmaller ? "image/jpeg" : "image/png");
  while (copy?.sent.size > state.limits.max_image_bytes && side > LEAST_SIDE) {
    side = Math.round(side / 2);
    copy = await encode(bitmap, side / longest, "image/jpeg");
  }
  bitmap.close();
  if (!copy) return null;
  const { sent, size } = copy;
  const kind = sent.type === "image/jpeg" ? "JPEG" : "PNG";
  const note = `${reason}. This browser sent a ${side < longest ? "smaller " : ""}copy of it: ${kind}, ${size} pixels, ${sizeInWords(sent.size)}.`;
  return { sent, note, pixels };
}

async function encode(bitmap, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  draw(bitmap, canvas, type);
  const sent = await new Promise((done) => canvas.toBlob(done, type, JPEG_QUALITY));
  return sent && { sent, size: `${canvas.width} × ${canvas.height}` };
}

function draw(bitmap, canvas, type) {
  const pen = canvas.getContext("2d");
  if (type === "image/jpeg") {
    pen.fillStyle = "#fff"; // under transparent parts, which JPEG has not
    pen.fillRect(0, 0, canvas.width, canvas.height);
  }
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}
