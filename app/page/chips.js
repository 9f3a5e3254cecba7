find(".chips").replaceChildren(...props.names.map((name) =>
  make("button", { type: "button", onclick: () => trigger("picked", { text: name }) }, name)));
