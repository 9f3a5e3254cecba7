const size = (row) => (row.bytes ? bytes(row.bytes) : "");
let rows = [], making = new Set(), latest = 0;

const verdict = (row) => {
  if (making.has(row.name)) return make("span", { class: "mark busy" }, row.state === "ready" ? "checking" : "making");
  if (row.state === "failed") return make("span", { class: "mark bad", title: row.reason }, "failed: " + row.reason);
  if (!row.checked) return "";
  return row.problems.length
    ? make("span", { class: "mark bad", title: row.problems.join("; ") }, "✗ " + row.problems.join("; "))
    : make("span", { class: "mark good", title: "sds3d check finds nothing wrong" }, "✓ checked");
};

const button = (row) => row.state === "ready"
  ? make("a", { class: "plain", href: address(row.path), download: row.path.split("/").pop(), "data-file": row.name }, "Download")
  : make("button", { type: "button", class: "plain", disabled: making.has(row.name), "data-make": row.name,
      onclick: () => produce(row.name) }, "Make");

const draw = () => {
  find(".files").hidden = rows.length === 0;
  find("ul").replaceChildren(...rows.map((row) => make("li", { "data-row": row.name },
    make("div", { class: "what" }, make("b", {}, row.name), make("span", { class: "quiet" }, row.description)),
    make("div", { class: "facts" }, make("span", { class: "quiet" }, size(row)), verdict(row)),
    button(row))));
};

const complain = (words) => { find(".reason").textContent = words || ""; find(".reason").hidden = !words; };

const produce = async (name) => {
  const id = props.value;
  making.add(name);
  complain("");
  draw();
  const row = await ask("export", { id, name });
  making.delete(name);
  if (props.value !== id) return;
  if (row.error) complain(row.error);
  else rows = rows.map((old) => (old.name === name ? row : old));
  draw();
};

const load = async () => {
  const id = props.value, turn = ++latest;
  making = new Set();
  complain("");
  if (!id) { rows = []; draw(); return; }
  const found = await ask("exported", id);
  if (turn !== latest) return;
  rows = found.rows || [];
  draw();
  const first = rows.find((row) => row.name === "asset.glb" && !row.checked);
  if (first) produce(first.name);
};

watch("value", load);
if (props.value) load();
