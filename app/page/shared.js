const gradio = window.gradio_config || {};
const root = (gradio.root || location.origin) + (gradio.api_prefix ?? "/gradio_api");
/** The address of a file on the server's disk. */
const address = (path) => root + "/file=" + path.split("/").map(encodeURIComponent).join("/");
/** An element with attributes, listeners (on...) and children; texts are never read as HTML. */
const make = (tag, given = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
};
const find = (selector) => element.querySelector(selector);
const bytes = (count) => (count >= 1e6 ? (count / 1e6).toFixed(1) + " MB" : Math.max(1, Math.round(count / 1e3)) + " kB");
/** One picture of a sheet that has so many across and so many rows. */
const tile = (path, place, across, rows, label) => {
  const x = across > 1 ? ((place % across) / (across - 1)) * 100 : 0;
  const y = rows > 1 ? (Math.floor(place / across) / (rows - 1)) * 100 : 0;
  const style = `background-image:url("${address(path)}");background-size:${across * 100}% ${rows * 100}%;background-position:${x}% ${y}%`;
  return make("div", { class: "tile", role: "img", "aria-label": label, style });
};
/** Asks the server; what goes wrong comes back as {error}. */
const ask = async (name, data) => {
  try {
    const answer = await server[name](data);
    if (answer === null || typeof answer !== "object") throw Error("no answer");
    return answer;
  } catch (trouble) {
    return { error: "The server does not answer; the page tries again.", silent: true };
  }
};
