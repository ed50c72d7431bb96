// Asks the public status socket, which answers once and closes.

const status = document.getElementById("status");
const socket = new WebSocket(location.origin.replace(/^http/, "ws") + status.dataset.socket);
socket.onmessage = ({ data }) => {
  const { rooms, time } = JSON.parse(data);
  status.textContent = `${rooms} rooms, ${new Date(time).toLocaleTimeString()}`;
};
socket.onerror = () => {
  status.textContent = "no answer";
};
