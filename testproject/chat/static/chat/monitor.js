// The monitor: a row for each handshake, the latest one first.

import { openSocket } from "./socket.js";

const rows = document.getElementById("handshakes");
const LENGTH = 50;

openSocket((event) => {
  if (event.type === "history") event.handshakes.forEach(addRow);
  if (event.type === "handshake") addRow(event);
  rows.ariaBusy = "false"; // From now on a screen reader reads what is new.
});

function addRow({ id, time, status, text, path, user, policy, seconds }) {
  if (document.getElementById(`handshake-${id}`)) return;
  const row = rows.insertRow(0);
  row.id = `handshake-${id}`;
  row.className = status === 101 ? "accepted" : "denied";
  const after = seconds < 1 ? `${(seconds * 1000).toFixed(1)} ms` : `${Math.round(seconds)} s`;
  const cells = [new Date(time).toLocaleTimeString(), `${status} ${text}`, path, user || "anonymous", policy, after];
  for (const cell of cells) row.insertCell().textContent = cell;
  if (rows.rows.length > LENGTH) rows.deleteRow(-1);
}
