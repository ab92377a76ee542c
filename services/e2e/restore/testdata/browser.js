// What the chat page needs of a browser, for Node: node --experimental-websocket browser.js PAGE ORIGIN USER TOKEN. A line of the input
// is sent as a message. Each time the page is drawn, its rows are printed as one line of JSON.
"use strict";
const fs = require("fs"), vm = require("vm"), readline = require("readline");
const [page, origin, user, token] = process.argv.slice(2);

function element() {
  return {
    children: [], value: "", textContent: "", className: "", setAttribute() {},
    append(...more) { this.children.push(...more); },
    replaceChildren(...all) { this.children = all; },
    querySelector() { return element(); },
  };
}
const elements = new Map();
const byId = id => { if (!elements.has(id)) elements.set(id, element()); return elements.get(id); };
const text = e => [e.textContent, ...e.children.map(text)].join(" ").trim();
byId("log").replaceChildren = function (...rows) { console.log(JSON.stringify(rows.map(text))); };

// Node 20 does not tell that a connection was not made; browsers do.
class Socket extends WebSocket {
  constructor(...args) {
    super(...args);
    let closed = false;
    this.addEventListener("close", () => closed = true);
    this.addEventListener("error", () => setTimeout(() => closed || this.onclose({ code: 1006, reason: "" })));
  }
}

Object.assign(globalThis, {
  WebSocket: Socket,
  document: { getElementById: byId, createElement: element, addEventListener() {}, visibilityState: "visible" },
  location: { origin, hash: "", pathname: "/" }, history: { replaceState() {} }, sessionStorage: {}, localStorage: {},
  addEventListener() {}, alert(message) { console.log(JSON.stringify(["alert: " + message])); },
  fetch: async () => ({ ok: true, json: async () => ({ token }) }),
});
vm.runInThisContext(fs.readFileSync(page, "utf8"), { filename: page });
byId("user").value = user;
byId("signin").onsubmit({ preventDefault() {} });
readline.createInterface({ input: process.stdin }).on("line", line => {
  byId("text").value = line;
  byId("compose").onsubmit({ preventDefault() {} });
}).on("close", () => process.exit(0));
