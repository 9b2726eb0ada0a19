// Requests to the server. Every one ends as { answer } or as { failure }, never as an exception.

const PATIENCE_MS = 60_000;
const KEY = "resnet-api-key"; // in sessionStorage: this tab only, until it closes
export const BARS = 5;

let key = sessionStorage.getItem(KEY) ?? "";

export function hasKey() {
  return key !== "";
}

export function useKey(text) {
  key = text.trim();
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export function classify(file, name, model, signal) {
  return post(`/classify?${query({ top_k: BARS, model })}`, file, name, signal);
}

export function explain(file, name, model, signal) {
  return post(`/explain?${query({ model })}`, file, name, signal);
}

export function listModels() {
  return request("/models", {});
}

function query(parameters) {
  return new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
}

function post(address, file, name, signal) {
  const body = new FormData();
  body.append("file", file, name);
  return request(address, { method: "POST", body, signal });
}

async function request(address, options) {
  const began = performance.now();
  const timeout = AbortSignal.timeout(PATIENCE_MS);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  try {
    const headers = key ? { "X-Api-Key": key } : {};
    const response = await fetch(address, { ...options, headers, signal });
    if (!response.ok) return { failure: await failureOf(response) };
    const answer = await response.json();
    const times = { ...serverTiming(response), round_trip: performance.now() - began };
    return { answer: { ...answer, times } };
  } catch {
    return { failure: { kind: timeout.aborted ? "slow" : "unreachable" } };
  }
}

async function failureOf(response) {
  const problem = await response.json().catch(() => ({}));
  return {
    kind: kindOf(response.status, problem.code),
    status: response.status,
    code: problem.code ?? "",
    detail: problem.detail ?? "",
    retryAfter_s: Number.parseInt(response.headers.get("Retry-After"), 10) || null,
  };
}

function kindOf(status, code) {
  if (status === 401) return "key";
  if (code === "not_ready") return "starting";
  return [429, 502, 503, 504].includes(status) ? "busy" : "refused";
}

// "decode;dur=1.90, queue;dur=0.02" → { decode: 1.9, queue: 0.02 }
function serverTiming(response) {
  const header = response.headers.get("Server-Timing") ?? "";
  return Object.fromEntries([...header.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, step, ms]) => [step, Number(ms)]));
}
