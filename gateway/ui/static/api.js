// Speaks with the API of the same address, as the one who is signed in.

/** What the API refused, in its own words. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The gateway answered ${status}.`);
    this.status = status;
    this.code = body.code || "unknown";
    this.title = body.title || "";
    this.body = body;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }

  get sentence() {
    return this.title && this.title !== this.message ? `${this.title} ${this.message}` : this.message;
  }
}

export const session = { current: null };
export const events = new EventTarget();  // "signed-out"

/** Whether the key may do that. */
export function may(scope) {
  return Boolean(session.current && session.current.scopes.includes(scope));
}

/** JSON from the API. `query` leaves out what is empty; `body` is sent as JSON. Throws Problem. */
export async function call(method, path, { query, body, signal } = {}) {
  const options = { method, signal, headers: {}, cache: "no-store", credentials: "same-origin" };
  if (method !== "GET" && session.current) options.headers["X-CSRF-Token"] = session.current.csrf_token;
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path + asQuery(query), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { code: "unreachable", title: "The gateway cannot be reached.", detail: "It is tried again." });
  }
  if (answer.status === 204) return null;
  const content = await answer.json().catch(() => ({}));
  if (answer.ok || (path === "/readyz" && answer.status === 503 && content.dependencies)) return content;
  if (answer.status === 401 && path !== "/v1/session") signedOut();
  throw new Problem(answer.status, content);
}

export const get = (path, query, signal) => call("GET", path, { query, signal });

export function asQuery(query) {
  const given = Object.entries(query || {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given).toString();
  return text ? `?${text}` : "";
}

/** Who is signed in; null where nobody is. */
export async function findSession() {
  // A first visit asks nothing: a refused request would stand in the browser's console as an error.
  if (!localStorage.getItem("safelight.signed-in")) return null;
  try {
    session.current = await call("GET", "/v1/session");
  } catch (error) {
    if (!(error instanceof Problem) || ![401, 403].includes(error.status)) throw error;
    localStorage.removeItem("safelight.signed-in");
    session.current = null;
  }
  return session.current;
}

/** Sign in with a token `access key.secret key`. Throws Problem. */
export async function signIn(token) {
  const [access_key, ...rest] = token.trim().replace(/^Bearer\s+/i, "").split(".");
  session.current = await call("POST", "/v1/session", { body: { access_key, secret: rest.join(".") } });
  localStorage.setItem("safelight.signed-in", "yes");
}

export async function signOut() {
  await call("DELETE", "/v1/session").catch(() => null);
  signedOut("out");
}

export function signedOut(how = "ended") {
  if (!session.current) return;
  session.current = null;
  localStorage.removeItem("safelight.signed-in");
  events.dispatchEvent(new CustomEvent("signed-out", { detail: how }));
}

/** Send a file. Returns {answer, abort}: a promise of the JSON, and how to stop. `progress(sent, total)`. */
export function send(method, path, body, headers, progress) {
  const request = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    request.open(method, path);
    request.responseType = "json";
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.setRequestHeader("X-CSRF-Token", session.current ? session.current.csrf_token : "");
    request.upload.onprogress = (event) => progress(event.loaded, event.lengthComputable ? event.total : 0);
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) return resolve(request.response);
      if (request.status === 401) signedOut();
      const problem = new Problem(request.status, request.response || {});
      problem.retryAfter = Number(request.getResponseHeader("Retry-After")) || 0;
      return reject(problem);
    };
    request.onerror = () => reject(new Problem(0, { code: "unreachable", title: "The connection broke." }));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    request.send(body);
  });
  return { answer, abort: () => request.abort() };
}
