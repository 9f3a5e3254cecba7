const canvas = find("canvas");
let gl = null;
const FRONT = { turn: 0.45, lift: 0.22, far: 3.1 };
let view = { ...FRONT }, drawn = null, kind = "mesh", latest = 0, due = false;

const complain = (words) => { find(".reason").textContent = words || ""; find(".reason").hidden = !words; };

// --- matrices, column by column as WebGL has them ---
const times = (a, b) => a.map((_, i) => { const c = i >> 2, r = i & 3; let s = 0; for (let k = 0; k < 4; k++) s += a[4 * k + r] * b[4 * c + k]; return s; });
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const l = Math.hypot(...a) || 1; return a.map((v) => v / l); };
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const FOV = 0.6;
const camera = () => {
  const { middle, radius } = drawn, far = view.far * radius;
  const back = [Math.sin(view.turn) * Math.cos(view.lift), Math.sin(view.lift), Math.cos(view.turn) * Math.cos(view.lift)];
  const eye = middle.map((m, i) => m + far * back[i]);
  const right = unit(cross([0, 1, 0], back)), up = cross(back, right);
  const look = [right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
    -dot(right, eye), -dot(up, eye), -dot(back, eye), 1];
  const wide = canvas.width / canvas.height, focal = 1 / Math.tan(FOV / 2) * Math.min(1, wide);
  const near = 0.02 * radius, deep = far + 4 * radius;
  const lens = [focal / wide, 0, 0, 0, 0, focal, 0, 0, 0, 0, (deep + near) / (near - deep), -1, 0, 0, (2 * deep * near) / (near - deep), 0];
  return { look, lens, eye };
};

// --- programs ---
const program = (vertex, fragment) => {
  const made = gl.createProgram();
  for (const [type, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, "#version 300 es\nprecision highp float;\n" + text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  return made;
};
const MESH = [`in vec3 place; in vec3 normal; in vec2 uv; in vec3 colour; uniform mat4 look, lens; out vec3 n; out vec2 at; out vec3 c;
void main() { n = mat3(look) * normal; at = uv; c = colour; gl_Position = lens * look * vec4(place, 1.0); }`,
`in vec3 n; in vec2 at; in vec3 c; uniform sampler2D skin; out vec4 rgba;
void main() { vec3 albedo = texture(skin, at).rgb * c; float light = 0.82 + 0.18 * abs(normalize(n).z); rgba = vec4(albedo * light, 1.0); }`];
const SPLATS = [`in vec2 corner; in vec3 place, axes; in vec4 turn, colour; uniform mat4 look, lens; uniform vec2 size; out vec2 off; out vec4 c;
mat3 rotation(vec4 q) { float w=q.x,x=q.y,y=q.z,z=q.w; return mat3(1.-2.*(y*y+z*z),2.*(x*y+w*z),2.*(x*z-w*y),2.*(x*y-w*z),1.-2.*(x*x+z*z),2.*(y*z+w*x),2.*(x*z+w*y),2.*(y*z-w*x),1.-2.*(x*x+y*y)); }
void main() {
  vec4 p = look * vec4(place, 1.0);
  mat3 m = mat3(look) * rotation(turn) * mat3(axes.x,0.,0., 0.,axes.y,0., 0.,0.,axes.z);
  mat3 s = m * transpose(m);
  float f = lens[1][1] * size.y * 0.5, d = -p.z;
  mat3 j = mat3(f/d,0.,0., 0.,f/d,0., f*p.x/(d*d),f*p.y/(d*d),0.);
  mat3 v = j * s * transpose(j);
  float a = v[0][0] + 0.3, b = v[0][1], e = v[1][1] + 0.3, mid = 0.5*(a+e), gap = sqrt(max(0.05, mid*mid - (a*e-b*b)));
  float l1 = mid + gap, l2 = max(0.1, mid - gap);
  vec2 dir = abs(b) < 1e-6 ? (a >= e ? vec2(1.,0.) : vec2(0.,1.)) : normalize(vec2(b, l1 - a));
  off = corner * 3.0; c = colour;
  vec2 shift = off.x * sqrt(l1) * dir + off.y * sqrt(l2) * vec2(-dir.y, dir.x);
  vec4 at = lens * p;
  gl_Position = d < 0.01 ? vec4(2.,2.,2.,1.) : vec4(at.xy + shift * 2.0 / size * at.w, at.z, at.w);
}`,
`in vec2 off; in vec4 c; out vec4 rgba;
void main() { float a = c.a * exp(-0.5 * dot(off, off)); if (a < 0.004) discard; rgba = vec4(c.rgb * a, a); }`];
let programs = {};

// --- files ---
const fetched = async (path) => {
  const answer = await fetch(address(path));
  if (!answer.ok) throw Error("the file can not be had");
  return answer.arrayBuffer();
};
const TYPES = { 5121: Uint8Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
const WIDE = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };
const glb = async (content) => {
  const words = new DataView(content), length = words.getUint32(12, true);
  const tree = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 20, length)));
  const start = 20 + length + 8;
  const values = (number) => {
    const a = tree.accessors[number], v = tree.bufferViews[a.bufferView];
    const count = a.count * WIDE[a.type], from = start + (v.byteOffset || 0) + (a.byteOffset || 0);
    return new TYPES[a.componentType](content.slice(from, from + count * TYPES[a.componentType].BYTES_PER_ELEMENT));
  };
  const part = tree.meshes[0].primitives[0], has = part.attributes;
  const material = tree.materials?.[part.material ?? 0]?.pbrMetallicRoughness?.baseColorTexture;
  let skin = null;
  if (material) {
    const image = tree.images[tree.textures[material.index].source], v = tree.bufferViews[image.bufferView];
    const bits = new Uint8Array(content, start + (v.byteOffset || 0), v.byteLength);
    skin = await createImageBitmap(new Blob([bits], { type: image.mimeType }));
  }
  const place = values(has.POSITION), points = place.length / 3;
  const colour = has.COLOR_0 === undefined ? null : values(has.COLOR_0);
  return { place, skin, colour, colours: colour ? colour.length / points : 3, points,
    normal: has.NORMAL === undefined ? place : values(has.NORMAL),
    uv: has.TEXCOORD_0 === undefined ? new Float32Array(2 * points) : values(has.TEXCOORD_0),
    index: new Uint32Array(part.indices === undefined ? [...Array(points).keys()] : values(part.indices)) };
};
const ply = (content) => {
  const head = new TextDecoder("latin1").decode(new Uint8Array(content, 0, Math.min(8192, content.byteLength)));
  const end = head.indexOf("end_header\n") + 11, count = +/element vertex (\d+)/.exec(head)[1];
  const names = [...head.slice(0, end).matchAll(/property float (\w+)/g)].map((found) => found[1]);
  const rows = new Float32Array(content.slice(end, end + 4 * count * names.length)), wide = names.length;
  const column = (name) => { const k = names.indexOf(name); return (i) => rows[i * wide + k]; };
  const [x, y, z, o] = ["x", "y", "z", "opacity"].map(column);
  const [s, q, f] = [["scale_0", "scale_1", "scale_2"], ["rot_0", "rot_1", "rot_2", "rot_3"], ["f_dc_0", "f_dc_1", "f_dc_2"]].map((n) => n.map(column));
  const out = new Float32Array(14 * count);
  for (let i = 0; i < count; i++) {
    const turn = unit(q.map((get) => get(i)));
    out.set([x(i), y(i), z(i), ...s.map((get) => Math.exp(get(i))), ...turn,
      ...f.map((get) => Math.min(1, Math.max(0, 0.5 + 0.28209479 * get(i)))), 1 / (1 + Math.exp(-o(i)))], 14 * i);
  }
  return { rows: out, count };
};

// --- what is drawn ---
const buffer = (data, target = gl.ARRAY_BUFFER) => { const made = gl.createBuffer(); gl.bindBuffer(target, made); gl.bufferData(target, data, gl.STATIC_DRAW); return made; };
const bind = (shader, name, wide, type = gl.FLOAT, stride = 0, from = 0, each = 0, whole = false) => {
  const place = gl.getAttribLocation(shader, name);
  if (place < 0) return;
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, wide, type, whole, stride, from);
  gl.vertexAttribDivisor(place, each);
};
const bounds = (at, count, wide) => {
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < count; i++) for (let k = 0; k < 3; k++) { low[k] = Math.min(low[k], at[i * wide + k]); high[k] = Math.max(high[k], at[i * wide + k]); }
  return { middle: low.map((v, k) => (v + high[k]) / 2), radius: Math.hypot(...low.map((v, k) => high[k] - v)) / 2 || 1 };
};
const meshed = (found) => {
  const shader = (programs.mesh ??= program(...MESH)), array = gl.createVertexArray();
  gl.bindVertexArray(array);
  buffer(found.place); bind(shader, "place", 3);
  buffer(found.normal); bind(shader, "normal", 3);
  buffer(found.uv); bind(shader, "uv", 2);
  const tint = gl.getAttribLocation(shader, "colour");
  if (found.colour) { buffer(found.colour); bind(shader, "colour", found.colours, { Float32Array: gl.FLOAT, Uint8Array: gl.UNSIGNED_BYTE, Uint16Array: gl.UNSIGNED_SHORT }[found.colour.constructor.name], 0, 0, 0, true); }
  else gl.vertexAttrib3f(tint, 1, 1, 1);
  buffer(found.index, gl.ELEMENT_ARRAY_BUFFER);
  const skin = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, skin);
  if (found.skin) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, found.skin);
  else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array([255, 255, 255, 255]));
  gl.generateMipmap(gl.TEXTURE_2D);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
  const paint = () => {
    gl.enable(gl.DEPTH_TEST); gl.disable(gl.BLEND);
    gl.bindTexture(gl.TEXTURE_2D, skin);
    gl.bindVertexArray(array);
    gl.drawElements(gl.TRIANGLES, found.index.length, gl.UNSIGNED_INT, 0);
  };
  return { shader, paint, ...bounds(found.place, found.points, 3) };
};
const splatted = ({ rows, count }) => {
  const shader = (programs.splats ??= program(...SPLATS)), array = gl.createVertexArray();
  gl.bindVertexArray(array);
  buffer(new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1])); bind(shader, "corner", 2);
  const data = buffer(rows), sorted = new Float32Array(rows.length), depth = new Float32Array(count);
  for (const [name, wide, from] of [["place", 3, 0], ["axes", 3, 12], ["turn", 4, 24], ["colour", 4, 40]]) bind(shader, name, wide, gl.FLOAT, 56, from, 1);
  const order = new Uint32Array(count).map((_, i) => i);
  const paint = ({ look }) => {
    for (let i = 0; i < count; i++) depth[i] = look[2] * rows[14 * i] + look[6] * rows[14 * i + 1] + look[10] * rows[14 * i + 2];
    order.sort((a, b) => depth[a] - depth[b]);
    for (let i = 0; i < count; i++) sorted.set(rows.subarray(14 * order[i], 14 * order[i] + 14), 14 * i);
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, data);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, sorted);
    gl.disable(gl.DEPTH_TEST); gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.uniform2f(gl.getUniformLocation(shader, "size"), canvas.width, canvas.height);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
  };
  return { shader, paint, ...bounds(rows, count, 14) };
};

const draw = () => {
  due = false;
  if (!drawn || !canvas.clientWidth) return;
  const sharp = Math.min(2, devicePixelRatio || 1);
  canvas.width = Math.round(canvas.clientWidth * sharp);
  canvas.height = Math.round(canvas.clientHeight * sharp);
  const seen = camera(), dark = document.body.classList.contains("dark");
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clearColor(...(dark ? [0.155, 0.153, 0.148] : [0.945, 0.94, 0.925]), 1);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.useProgram(drawn.shader);
  gl.uniformMatrix4fv(gl.getUniformLocation(drawn.shader, "look"), false, seen.look);
  gl.uniformMatrix4fv(gl.getUniformLocation(drawn.shader, "lens"), false, seen.lens);
  drawn.paint(seen);
  canvas.dataset.drawn = kind;
};
const again = () => { if (!due) { due = true; requestAnimationFrame(draw); } };

const load = async () => {
  const files = props.value || {}, turn = ++latest, path = files[kind];
  find(".viewer").hidden = !files.mesh;
  find(".switch").hidden = !files.splats;
  for (const button of element.querySelectorAll("[data-kind]")) {
    const on = button.dataset.kind === kind;
    button.setAttribute("aria-checked", on);
    button.tabIndex = on ? 0 : -1;
  }
  delete canvas.dataset.drawn;
  drawn = null;
  if (!path) return;
  gl ??= canvas.getContext("webgl2", { antialias: true, alpha: false, preserveDrawingBuffer: true });
  if (!gl) return complain("This browser shows no 3D (WebGL 2 is missing); the files below are complete.");
  try {
    const content = await fetched(path);
    const found = kind === "mesh" ? meshed(await glb(content)) : splatted(ply(content));
    if (turn !== latest) return;
    drawn = found;
    complain("");
    again();
  } catch (trouble) {
    complain("It can not be shown here: " + trouble.message);
  }
};

// --- hands and keys ---
let held = null, pinch = 0;
const touches = new Map();
const turned = (x, y) => { view.turn += x; view.lift = Math.min(1.5, Math.max(-1.5, view.lift + y)); again(); };
const closer = (factor) => { view.far = Math.min(12, Math.max(1.2, view.far * factor)); again(); };
canvas.addEventListener("pointerdown", (event) => { touches.set(event.pointerId, event); canvas.setPointerCapture(event.pointerId); held = event; pinch = 0; });
canvas.addEventListener("pointermove", (event) => {
  if (!touches.has(event.pointerId)) return;
  touches.set(event.pointerId, event);
  if (touches.size === 2) {
    const [a, b] = [...touches.values()], apart = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    if (pinch) closer(pinch / apart);
    pinch = apart;
  } else { turned((held.clientX - event.clientX) / 150, (event.clientY - held.clientY) / 150); held = event; }
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => { touches.delete(event.pointerId); pinch = 0; held = [...touches.values()][0]; });
canvas.addEventListener("wheel", (event) => { event.preventDefault(); closer(Math.exp(event.deltaY / 700)); }, { passive: false });
const KEYS = { ArrowLeft: () => turned(-0.15, 0), ArrowRight: () => turned(0.15, 0), ArrowUp: () => turned(0, 0.12),
  ArrowDown: () => turned(0, -0.12), "+": () => closer(0.9), "=": () => closer(0.9), "-": () => closer(1.11),
  0: () => { view = { ...FRONT, turn: 0 }; again(); } };
canvas.addEventListener("keydown", (event) => { if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); } });
const choose = (next) => { kind = next; load(); find(`[data-kind=${next}]`).focus(); };
for (const button of element.querySelectorAll("[data-kind]")) {
  button.addEventListener("click", () => choose(button.dataset.kind));
  button.addEventListener("keydown", (event) => {
    if (event.key.startsWith("Arrow")) { event.preventDefault(); choose(kind === "mesh" ? "splats" : "mesh"); }
  });
}
// A graphics driver that stumbles takes all with it; what it gives back is filled anew.
canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); drawn = null; programs = {}; });
canvas.addEventListener("webglcontextrestored", load);
new ResizeObserver(again).observe(canvas);
watch("value", () => { kind = "mesh"; view = { ...FRONT }; load(); });
if (props.value) load();
