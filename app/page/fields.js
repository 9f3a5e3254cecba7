const prefix = "field-" + Math.random().toString(36).slice(2, 8) + "-";

const changed = () => {
  const values = {};
  for (const box of element.querySelectorAll("[data-name]")) {
    const now = box.type === "checkbox" ? (box.checked ? "True" : "False") : box.value.trim();
    const differs = now !== "" && now !== box.dataset.shown;
    box.closest(".field").classList.toggle("changed", differs);
    if (differs) values[box.dataset.name] = now;
  }
  return values;
};

const count = (values) => {
  const many = Object.keys(values).length;
  find(".count").textContent = many ? `${many} changed` : "";
  find(".reset").hidden = !many;
};

// What was typed a moment ago stands against an older value that arrives late, as it does while the form is opened.
let typed = null, when = 0;
const tell = () => { typed = changed(); when = Date.now(); count(typed); props.value = typed; };

const control = (field, now) => {
  const common = { id: prefix + field.name, "data-name": field.name, "data-shown": field.shown,
    "aria-describedby": field.help ? prefix + field.name + "-help" : undefined };
  if (field.kind === "yes") return make("input", { type: "checkbox", ...common, checked: now === "True" });
  if (field.kind === "choice") return make("select", common, ...field.choices.map((choice) =>
    make("option", { value: choice, selected: choice === now }, choice)));
  return make("input", { type: "text", inputmode: field.optional || field.kind === "numbers" ? undefined : "decimal",
    maxlength: 80, autocomplete: "off", spellcheck: "false", ...common, value: now });
};

const row = (field, values) => make("div", { class: "field" },
  make("label", { for: prefix + field.name }, field.label),
  control(field, values[field.name] ?? field.shown),
  field.help ? make("p", { class: "help", id: prefix + field.name + "-help" }, field.help) : "");

const build = () => {
  const values = props.value || {};
  const open = new Set([...element.querySelectorAll("details.group[open]")].map((group) => group.dataset.title.split(":")[0]));
  find(".groups").replaceChildren(...(props.groups || []).map((group) =>
    make("details", { class: "group", "data-title": group.title, open: open.has(group.title.split(":")[0]) },
      make("summary", {}, group.title),
      group.about ? make("p", { class: "help" }, group.about) : "",
      ...group.fields.map((field) => row(field, values)))));
  count(changed());
};

const same = () => JSON.stringify(props.value || {}) === JSON.stringify(changed());
element.addEventListener("input", (event) => { if (event.target.dataset.name) tell(); });
find(".reset").addEventListener("click", () => { props.value = {}; build(); });
watch("groups", () => { build(); if (!same()) tell(); });
watch("value", () => {
  if (same()) return;
  if (typed && Date.now() - when < 1500) props.value = typed;
  else build();
});
build();
