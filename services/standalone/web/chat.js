// A small chat over the plain WebSocket protocol runnel.v1.json: one protobuf-JSON frame a line. It keeps what every
// client must: a command keeps its id until it is committed, a conversation resumes after its last seq, repeats are
// dropped, gaps are read, and what arrived is acknowledged.
"use strict";

const $ = id => document.getElementById(id);
const conversations = new Map(); // id → {id, name, joined, last, hash, events, changes, receipt, read}
const open = new Map();          // request id → {command, done}
const outbox = [];               // commands that are not committed yet, in order
let socket, me, token, current, nextId = 1, attempt = 0, device = sessionStorage.device ||= "web-" + crypto.randomUUID().slice(0, 8);

// A UUIDv7 (RFC 9562): 48 bits of time, then random.
function uuid7() {
  const b = crypto.getRandomValues(new Uint8Array(16)), now = Date.now();
  for (let i = 0; i < 6; i++) b[i] = Math.floor(now / 2 ** (8 * (5 - i))) & 255;
  b[6] = b[6] & 15 | 0x70; b[8] = b[8] & 63 | 0x80;
  const h = [...b].map(x => x.toString(16).padStart(2, "0")).join("");
  return [h.slice(0, 8), h.slice(8, 12), h.slice(12, 16), h.slice(16, 20), h.slice(20)].join("-");
}

// The server prints a link with a code in its fragment, which is sent to nobody. The code is kept for other tabs and taken out of
// the address and its history.
function takeCode() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) { localStorage.code = code; history.replaceState(null, "", location.pathname); }
  $("code").hidden = Boolean(localStorage.code);
}

async function fetchToken() {
  const body = JSON.stringify({ user: me, code: localStorage.code || "" });
  const answer = await fetch("dev/token", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!answer.ok) throw Object.assign(new Error((await answer.text()).trim()), { status: answer.status });
  return (await answer.json()).token;
}

// Shows the sign-in form with the reason. A code that is refused is of an earlier run of the server.
function askToSignIn(error) {
  if (error.status === 401) localStorage.removeItem("code");
  $("problem").textContent = error.message;
  $("signin").hidden = false; $("app").hidden = true; $("code").hidden = Boolean(localStorage.code);
  $("user").readOnly = conversations.size > 0; // what is shown is this user's
  setState("not connected");
}

async function connect() {
  setState("connecting …");
  try { token = await fetchToken(); } catch (error) {
    return attempt === 0 || error.status === 401 ? askToSignIn(error) : retry();
  }
  socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/v1/ws", ["runnel.v1.json"]);
  socket.onopen = () => request({ connect: {
    token, deviceId: device, start: "START_FIRST", client: "runnel-page/1",
    resume: [...conversations.values()].map(c => ({ conversationId: c.id, seq: String(c.last), ...(c.hash && { hash: c.hash }) })),
  } }, onConnected);
  socket.onmessage = m => m.data.split("\n").filter(Boolean).forEach(line => onFrame(JSON.parse(line)));
  socket.onclose = e => {
    open.clear();
    conversations.forEach(c => c.reading = false);
    if (e.code >= 4500) return setState("closed: " + e.reason);
    retry();
  };
}

function retry(delay) {
  const wait = delay ?? Math.random() * Math.min(20000, 300 * 2 ** attempt++);
  setState("reconnecting …");
  setTimeout(connect, wait);
}

function request(body, done) {
  const id = String(nextId++);
  open.set(id, done);
  socket.send(JSON.stringify({ id, ...body }));
}

const handlers = {
  event: e => onEvent(e),
  receipt: r => { const c = conversations.get(r.conversationId); if (c) { c.receipt = r; render(); } },
  attached: a => add(a.conversation),
  hidden: h => { const c = conversations.get(h.conversationId); if (c && Number(h.last) > c.last) { c.last = Number(h.last); c.hash = ""; } },
  forked: f => { const c = conversations.get(f.conversationId); if (c) { c.before ||= c.events; restart(c); socket.close(); } },
  detached: d => { conversations.delete(d.conversationId); if (current === d.conversationId) current = null; render(); },
  heartbeat: h => { socket.send(JSON.stringify({ pong: {} })); (h.heads || []).forEach(p => catchUp(p.conversationId, Number(p.seq))); },
  tokenExpiring: async () => {
    try { token = await fetchToken(); } catch { return; } // the connection ends with its token, and connect tells why
    request({ refresh: { token } }, () => {});
  },
  goAway: () => {},
};

function onFrame(f) {
  if (f.id && f.id !== "0") { const done = open.get(f.id); open.delete(f.id); return done?.(f); }
  for (const kind in handlers) if (f[kind]) handlers[kind](f[kind]);
}

function onConnected(f) {
  if (f.error) { $("problem").textContent = f.error.message; return; }
  attempt = 0;
  setState("connected");
  $("signin").hidden = true; $("app").hidden = false; $("me").textContent = me;
  (f.connected.conversations || []).forEach(add);
  outbox.forEach(command => command.sent = false);
  pump();
  render();
}

function add(c) {
  if (!conversations.has(c.conversationId)) {
    conversations.set(c.conversationId, restart({ id: c.conversationId, name: c.peer || c.name || "group", joined: Number(c.joinedSeq) }));
    current ||= c.conversationId;
  }
  const known = conversations.get(c.conversationId);
  known.head = Number(c.head);
  tellUndone(known);
  render();
}

// Begins a conversation with its first event: at first, and when the server's log went back and what the page has is not in it.
function restart(c) { return Object.assign(c, { last: c.joined - 1, hash: "", events: [], changes: new Map(), read: 0, receipt: null }); }

// When the log of a server that went back was read again: says what was undone, and sends the user's own messages among it again.
// They keep their ids, so that one that is committed after all is not stored twice.
function tellUndone(c) {
  if (!c.before || c.last < c.head) return;
  const key = e => e.sender + " " + e.commandId, present = new Set(c.events.map(key)), undone = c.before.filter(e => !present.has(key(e)));
  c.before = null;
  if (!undone.length) return;
  const stays = e => Number(e.body.message.replyTo || 0) < Number(undone[0].seq), mine = undone.filter(e => e.sender === me && e.body?.message && stays(e));
  c.undone = `The server lost events: ${undone.length} of this conversation are undone, and your own messages among them are sent again: ${mine.length}`;
  outbox.splice(outbox[0]?.sent ? 1 : 0, 0, ...mine.map(e => ({ conversationId: c.id, commandId: e.commandId, body: { message: e.body.message } })));
  pump();
}

// What was done to a message after it was sent.
function changesOf(c, seq) {
  if (!c.changes.has(seq)) c.changes.set(seq, { reactions: new Map() });
  return c.changes.get(seq);
}

function apply(c, e) {
  const { edit, delete: deletion, react } = e.body || {};
  if (edit) changesOf(c, Number(edit.target)).text = edit.text || "(no text)";
  if (deletion) { const m = changesOf(c, Number(deletion.target)); m.deleted = true; m.reactions.clear(); }
  if (react) {
    const { reactions } = changesOf(c, Number(react.target));
    if (!reactions.has(react.emoji)) reactions.set(react.emoji, new Set());
    reactions.get(react.emoji)[react.remove ? "delete" : "add"](e.sender);
    if (!reactions.get(react.emoji).size) reactions.delete(react.emoji);
  }
}

function onEvent(e) {
  const c = conversations.get(e.conversationId), seq = Number(e.seq);
  if (!c || seq <= c.last) return;                    // a repeat
  if (seq > c.last + 1) return catchUp(c.id, seq);    // a gap
  c.last = seq;
  c.hash = btoa(atob(e.hash).slice(0, 8));             // lets the server see that its log went back
  c.events.push(e);
  apply(c, e);
  ack(c);
  tellUndone(c);
  render();
}

function catchUp(id, head) {
  const c = conversations.get(id);
  if (!c || head <= c.last || c.reading) return;
  c.reading = true;
  request({ read: { conversationId: id, after: String(c.last), limit: 500 } }, f => {
    c.reading = false;
    (f.page?.events || []).forEach(onEvent);
  });
}

let ackTimer;
function ack(c) {
  if (document.visibilityState === "visible" && current === c.id) c.read = c.last;
  ackTimer ||= setTimeout(() => {
    ackTimer = null;
    if (socket.readyState !== 1) return;
    const positions = [...conversations.values()].map(c => ({ conversationId: c.id, delivered: String(c.last), ...(c.read && { read: String(c.read) }) }));
    socket.send(JSON.stringify({ ack: { positions } }));
  }, 200);
}

// A command leaves the outbox when it is committed or refused for good; one is under way at a time, so order is kept.
function submit(command) { command.commandId = uuid7(); outbox.push(command); pump(); render(); }

function pump() {
  const command = outbox[0];
  if (!command || command.sent || socket?.readyState !== 1) return;
  command.sent = true;
  const { conversationId, commandId, body } = command;
  request({ submit: { ...(conversationId && { conversationId }), commandId, body } }, f => {
    const refused = f.error || f.outcome?.error;
    if (refused && ["ERROR_CODE_UNAVAILABLE", "ERROR_CODE_RATE_LIMITED", "ERROR_CODE_INTERNAL"].includes(refused.code)) {
      command.sent = false;
      return setTimeout(pump, Number(refused.retryAfterMs) || 1000);
    }
    outbox.shift();
    if (refused && refused.code !== "ERROR_CODE_ALREADY_EXISTS") alert(refused.message);
    if (command.body.create && f.outcome) current = f.outcome.conversationId;
    pump();
    render();
  });
}

const count = (steps, seq) => { let k = 0; for (const s of steps || []) if (Number(s.seq) >= seq) k = s.members; return k; };

function ticks(c, seq) {
  const others = (c.receipt?.members || 1) - 1, seen = count(c.receipt?.read, seq) - 1, got = count(c.receipt?.delivered, seq) - 1;
  if (seen > 0) return { text: `✓✓ read ${seen} of ${others}`, read: true };
  if (got > 0) return { text: `✓✓ delivered ${got} of ${others}` };
  return { text: "✓ sent" };
}

function row(kind, who, text, note, strong) {
  const li = document.createElement("li"), small = document.createElement("small");
  li.className = kind;
  li.textContent = text;
  small.textContent = (who ? who + " " : "") + (note || "");
  if (strong) small.className = "read";
  if (small.textContent.trim()) li.append(small);
  return li;
}

function eventRow(c, e) {
  const seq = Number(e.seq), time = new Date(Number(e.timeMs)).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const b = e.body || {};
  if (e.kind === "EVENT_KIND_MESSAGE") {
    const mine = e.sender === me, t = mine && ticks(c, seq), m = c.changes.get(seq) || { reactions: new Map() };
    const gone = m.deleted ? "(deleted)" : !b.message && !m.text ? "(erased)" : "";
    const text = gone || m.text || b.message.text || "(no text)";
    const li = row((mine ? "mine" : "") + (gone ? " gone" : ""), mine ? "" : e.sender, text, time + (m.text && !gone ? " edited" : "") + (t ? " " + t.text : ""), t && t.read);
    if (!gone) li.append(actions(c, seq, mine, text, m.reactions));
    return li;
  }
  if (b.edit || b.delete || b.react || ["EVENT_KIND_EDITED", "EVENT_KIND_REACTED"].includes(e.kind)) return null; // shown at their message
  const notice = b.create ? "created the conversation" : b.addMembers ? "added " + b.addMembers.members.join(", ")
    : b.removeMember ? "removed " + b.removeMember.member : b.leave ? "left" : b.rename ? "renamed it to " + b.rename.name
    : b.erase ? "erased content" : e.body ? "did something that this page does not know" : "did something that was erased";
  return row("notice", "", e.sender + " " + notice);
}

// Reactions to a message, and what can be done with it.
function actions(c, target, mine, text, reactions) {
  const span = document.createElement("span"), all = new Map(reactions);
  span.className = "actions";
  const button = (label, title, body, pressed) => {
    const b = document.createElement("button");
    b.textContent = label;
    b.title = title;
    b.setAttribute("aria-pressed", Boolean(pressed));
    b.onclick = () => { const made = body(); if (made) submit({ conversationId: c.id, body: made }); };
    span.append(b);
  };
  if (!all.has("👍")) all.set("👍", new Set());
  for (const [emoji, users] of all) {
    const remove = users.has(me);
    button(emoji + (users.size ? " " + users.size : ""), [...users].join(", ") || "React", () => ({ react: { target: String(target), emoji, ...(remove && { remove }) } }), remove);
  }
  if (mine) {
    button("✎", "Edit", () => { const t = prompt("New text", text); return t && { edit: { target: String(target), text: t } }; });
    button("✕", "Delete for everyone", () => confirm("Delete this message for everyone?") && { delete: { target: String(target) } });
  }
  return span;
}

function render() {
  const c = conversations.get(current);
  $("conversations").replaceChildren(...[...conversations.values()].map(x => {
    const li = document.createElement("li"), b = document.createElement("button"), unread = x.events.filter(e => Number(e.seq) > x.read && e.sender !== me && e.body?.message).length;
    b.textContent = x.name;
    b.setAttribute("aria-current", x.id === current);
    b.onclick = () => { current = x.id; x.read = x.last; ack(x); render(); };
    if (unread && x.id !== current) { const n = document.createElement("span"); n.className = "unread"; n.textContent = unread; b.append(n); }
    li.append(b);
    return li;
  }));
  $("title").textContent = c ? c.name : "No conversation yet";
  $("text").disabled = $("compose").querySelector("button").disabled = !c;
  if (!c) return $("log").replaceChildren();
  const waiting = outbox.filter(o => o.conversationId === c.id && o.body.message);
  $("log").replaceChildren(...c.events.map(e => eventRow(c, e)).filter(Boolean), ...(c.undone ? [row("notice", "", c.undone)] : []), ...waiting.map(o => row("mine", "", o.body.message.text, "○ sending")));
  $("log").scrollTop = $("log").scrollHeight;
}

function setState(text) { $("state").textContent = text; }

takeCode();
addEventListener("hashchange", takeCode);
$("signin").onsubmit = e => {
  e.preventDefault();
  me = $("user").value; $("problem").textContent = "";
  if ($("code").value) { localStorage.code = $("code").value.trim(); $("code").value = ""; }
  connect();
};
$("open").onsubmit = e => { e.preventDefault(); submit({ body: { create: { kind: "KIND_DIRECT", members: [$("peer").value] } } }); $("peer").value = ""; };
$("compose").onsubmit = e => { e.preventDefault(); submit({ conversationId: current, body: { message: { text: $("text").value } } }); $("text").value = ""; };
document.addEventListener("visibilitychange", () => { const c = conversations.get(current); if (c) ack(c); });
