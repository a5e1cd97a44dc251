// What the page does beyond being read: filter while typing, watch uploads, upload by
// drop, edit, delete, restore.  Every page works for reading without it.
"use strict";

const POLL_MS = 2000;
const FILTER_MS = 250;
const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
document.documentElement.classList.remove("no-js");

// -- words ----------------------------------------------------------------------------

function size(bytes) {
  if (bytes < 1024) return `${Math.round(bytes)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
  let power = 0;
  for (bytes /= 1024; bytes >= 1024 && power < units.length - 1; power++) bytes /= 1024;
  return `${bytes.toFixed(1)} ${units[power]}`;
}

function duration(seconds) {
  if (!isFinite(seconds)) return "";
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s left`;
  if (whole < 3600) return `${Math.ceil(whole / 60)} min left`;
  return `${Math.floor(whole / 3600)} h ${Math.ceil((whole % 3600) / 60)} min left`;
}

function notice(text, bad = false) {
  const line = document.createElement("p");
  line.textContent = text;
  line.className = bad ? "bad" : "";
  one("#notices").append(line);
  setTimeout(() => line.remove(), bad ? 10000 : 4000);
}

// The server tells failures as {"error": {"message"}}; anything else gets its status.
function reason(status, text) {
  try {
    const {message} = JSON.parse(text).error;
    if (message) return message;
  } catch { /* not JSON: say what is known */ }
  if (!status) return "the connection was lost";
  if (status === 412) return "something of that name is there already";
  return `the server answered ${status}`;
}

function confirmed(text, action) {
  const dialog = one("#confirm");
  one("#confirm-text").textContent = text;
  one("#confirm-yes").textContent = action;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), {once: true});
  });
}

// -- asking the server ----------------------------------------------------------------

// A page opened as http://USER:PASSWORD@HOST/ has both in its base URL, which fetch refuses.
const here = () => location.origin + location.pathname + location.search;
const absolute = (path) => new URL(path, location.origin).href;

async function ask(method, url, headers = {}, body = undefined) {
  const response = await fetch(absolute(url), {
    method, body, headers: {Accept: "application/json", ...headers}, cache: "no-store",
  });
  if (!response.ok) throw new Error(reason(response.status, await response.text()));
  return response;
}

async function act(promise, done) {
  try {
    await promise;
    if (done) notice(done);
    return true;
  } catch (error) {
    notice(error.message, true);
    return false;
  }
}

// Put the server's newest version into a part of the page; who works by keys stays where they are.
function renew(part, newer) {
  const spots = (root) => all("a, button", root);
  const held = spots(part).indexOf(document.activeElement);
  const href = document.activeElement.getAttribute("href");
  part.replaceWith(document.adoptNode(newer));
  if (held < 0) return;
  const same = href && spots(newer).find((spot) => spot.getAttribute("href") === href);
  (same || spots(newer)[held])?.focus({preventScroll: true});
}

async function refresh() {
  const response = await fetch(here(), {headers: {Accept: "text/html"}, cache: "no-store"});
  if (!response.ok) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  document.documentElement.classList.remove("no-js");
  for (const part of all("[data-live]")) {
    const newer = fresh.getElementById(part.id);
    if (newer) renew(part, newer);
  }
}

// -- filtering and keys ---------------------------------------------------------------

function startFilter(form) {
  let timer = 0;
  const update = () => {
    history.replaceState(null, "", `?${new URLSearchParams(new FormData(form))}`);
    refresh();
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(update, FILTER_MS);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    update();
  });
}

function moveFocus(step) {
  const links = all("#rows [data-row]");
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : at + step;
  links[next]?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || one("dialog[open]")) return;
  const typing = event.target.closest("input, textarea, select");
  const filter = one("#filter input[type=search]");
  if (event.key === "/" && !typing && filter) {
    event.preventDefault();
    filter.focus();
    filter.select();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (!typing || typing === filter)) {
    if (!all("#rows [data-row]").length) return;
    event.preventDefault();
    moveFocus(event.key === "ArrowDown" ? 1 : -1);
  }
});

// -- watching uploads -----------------------------------------------------------------

const watched = () => one("[data-busy]") || uploads.some((upload) => upload.running);

function showSize(element, bytes) {
  const cell = one("[data-size]", element);
  if (cell && cell.dataset.size !== String(bytes)) {
    cell.dataset.size = bytes;
    cell.textContent = size(bytes);
  }
}

async function poll() {
  if (document.hidden || !watched()) return;
  const answer = await (await ask("GET", here())).json();
  const images = answer.images ?? (answer.id ? [answer] : []);
  const shown = all("[data-id]");
  const now = images.filter((image) => image.id).map((image) => `${image.id} ${image.status}`);
  const then = shown.map((element) => `${element.dataset.id} ${element.dataset.is}`);
  if (now.join() !== then.join()) return refresh();
  const sizes = new Map(images.map((image) => [image.id, image.size]));
  for (const element of shown) showSize(element, sizes.get(element.dataset.id));
}

// The next question waits for the last answer: a slow server is not asked twice at once.
async function keepPolling() {
  try {
    await poll();
  } catch { /* the next one may work */ }
  setTimeout(keepPolling, POLL_MS);
}

// -- uploading ------------------------------------------------------------------------

const uploads = [];

class Upload {
  constructor(file, folder) {
    this.file = file;
    this.url = absolute(folder + encodeURIComponent(file.name));
    this.running = this.ended = false;
    this.item = document.createElement("li");
    this.title = this.add("bdi", "title", file.name);
    this.button = this.add("button", "button small", "Cancel");
    this.bar = this.add("progress", "", "");
    this.told = this.add("span", "told", `waiting · ${size(file.size)}`);
    this.bar.max = file.size || 1;
    this.bar.value = 0;
    this.bar.setAttribute("aria-label", file.name);
    this.button.type = "button";
    this.button.setAttribute("aria-label", `Cancel ${file.name}`);
    this.button.addEventListener("click", () => this.ended ? this.item.remove() : this.cancel());
    one("#uploads ul").append(this.item);
  }

  add(tag, name, text) {
    const element = document.createElement(tag);
    element.className = name;
    element.textContent = text;
    this.item.append(element);
    return element;
  }

  cancel() {
    this.end("failed", "cancelled");
    this.request?.abort();
  }

  end(state, text) {
    if (this.ended) return;
    this.ended = true;
    this.running = false;
    this.item.classList.add(state);
    this.told.textContent = text;
    this.button.textContent = "Dismiss";
    this.button.setAttribute("aria-label", `Dismiss ${this.file.name}`);
    refresh();
  }

  // What has the name, other than an upload that failed: that is in nobody's way.
  async isTaken() {
    const headers = {Accept: "application/json"};
    const response = await fetch(`${this.url}?page`, {headers, cache: "no-store"});
    return response.ok && (await response.json()).status !== "killed";
  }

  // A conflict is found before any byte is sent; `If-None-Match` catches a race.
  async run() {
    if (this.ended) return;
    this.running = true;
    try {
      if (await this.isTaken()) {
        return this.end("failed", "refused: something of that name is there already");
      }
    } catch {
      return this.end("failed", "failed: the server does not answer");
    }
    if (!this.ended) await this.send();
  }

  send() {
    const request = this.request = new XMLHttpRequest();
    const started = performance.now();
    request.upload.addEventListener("progress", (event) => this.show(event.loaded, started));
    request.upload.addEventListener("load", () => {
      this.told.textContent = "sent · the server checks and stores it";
    });
    request.open("PUT", this.url);
    request.setRequestHeader("If-None-Match", "*");
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(this.file);
    return new Promise((resolve) => request.addEventListener("loadend", () => {
      if (request.status >= 200 && request.status < 300) this.succeed();
      else this.end("failed", `failed: ${reason(request.status, request.responseText)}`);
      resolve();
    }));
  }

  succeed() {
    this.bar.value = this.bar.max;
    this.end("done", `done · ${size(this.file.size)}`);
  }

  show(sent, started) {
    if (this.ended) return;
    const speed = sent / Math.max((performance.now() - started) / 1000, 0.001);
    const left = duration((this.file.size - sent) / speed);
    this.bar.value = sent;
    this.told.textContent =
      [`${size(sent)} of ${size(this.file.size)}`, `${size(speed)}/s`, left].join(" · ");
  }
}

let queue = Promise.resolve();

function enqueue(files, folder) {
  one("#uploads").hidden = false;
  for (const file of files) {
    const upload = new Upload(file, folder);
    uploads.push(upload);
    queue = queue.then(() => upload.run());
  }
}

function startUploads(folder) {
  const chooser = one("#files");
  const drop = one("#drop");
  one("#choose").addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    enqueue([...chooser.files], folder);
    chooser.value = "";
  });
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    drop.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    drop.hidden = true;
    enqueue([...event.dataTransfer.files], folder);
  });
  addEventListener("beforeunload", (event) => {
    if (uploads.some((upload) => !upload.ended)) event.preventDefault();
  });
}

// -- changing an image ----------------------------------------------------------------

function setAttributes(values) {
  const headers = {"Content-Type": "application/json", "X-Imagefs": "1"};
  return ask("POST", `${one("main").dataset.image}?properties`, headers, JSON.stringify(values));
}

function changes(form) {
  const values = {};
  for (const field of all("[name][data-was]", form)) {
    if (field.closest(".removed")) values[field.name] = null;
    else if (field.value !== field.dataset.was) values[field.name] = field.value;
  }
  const name = one("[data-new-name]", form).value.trim();
  if (name) values[`property.${name}`] = one("[data-new-value]", form).value;
  return values;
}

function toggleEdit() {
  const form = one("#edit");
  const button = one("[aria-controls=edit]");
  form.hidden = !form.hidden;
  button.setAttribute("aria-expanded", String(!form.hidden));
  (form.hidden ? button : one("select", form)).focus();
}

async function save(event) {
  event.preventDefault();
  const values = changes(event.target);
  if (Object.keys(values).length && !await act(setAttributes(values))) return;
  location.reload();
}

async function remove(button) {
  const {delete: url, name, usedBy} = button.dataset;
  const forGood = "forGood" in button.dataset;
  const question = forGood
    ? `Delete “${name}” for good? This cannot be undone.`
    : `Move “${name}” to the trash?` +
      (usedBy ? ` It is in use by ${usedBy}: what is open there stays readable.` : "");
  if (!await confirmed(question, forGood ? "Delete for good" : "Move to trash")) return;
  // It means this very image, and not whatever has the name by now.
  const headers = button.dataset.etag ? {"If-Match": button.dataset.etag} : {};
  if (!await act(ask("DELETE", url, headers), `“${name}” is deleted.`)) return;
  if (one("main").dataset.image) location.assign(url.slice(0, url.lastIndexOf("/") + 1));
  else refresh();
}

async function unlock({unlock: url, token}) {
  if (await act(ask("UNLOCK", url, {"Lock-Token": `<${token}>`}), "The lock is ended.")) refresh();
}

async function restore({restore: url, to, name}) {
  const headers = {Destination: absolute(to), Overwrite: "F"};
  if (await act(ask("MOVE", url, headers), `“${name}” is back.`)) refresh();
}

async function copy(button) {
  const source = one(button.dataset.copy);
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(source.textContent);
  } else {
    // Plain HTTP beyond this host: browsers give no clipboard, but still this.
    getSelection().selectAllChildren(source);
    document.execCommand("copy");
    getSelection().removeAllRanges();
  }
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1500);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const data = button.dataset;
  if ("copy" in data) act(copy(button));
  else if ("delete" in data) remove(button);
  else if ("restore" in data) restore(data);
  else if ("unlock" in data) unlock(data);
  else if ("edit" in data) toggleEdit();
  else if ("remove" in data) {
    button.setAttribute("aria-pressed", button.closest("li").classList.toggle("removed"));
  }
  else if ("set" in data && await act(setAttributes({[data.set]: data.value}))) refresh();
});

// -- start ----------------------------------------------------------------------------

if (one("#filter")) startFilter(one("#filter"));
if (one("main").dataset.upload) startUploads(one("main").dataset.upload);
one("#edit")?.addEventListener("submit", save);
setTimeout(keepPolling, POLL_MS);
