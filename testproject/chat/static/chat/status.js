// Asks the public status socket, which answers once and closes.

import { GuardedWebSocket } from "../channels_wsdeny/wsdeny.js";

const status = document.getElementById("status");
const socket = new GuardedWebSocket(status.dataset.socket);
socket.onmessage = ({ data }) => {
  const { rooms, time } = JSON.parse(data);
  status.textContent = `${rooms} rooms, ${new Date(time).toLocaleTimeString()}`;
};
socket.onretry = () => {
  status.textContent = "no answer yet";
};
