"""Renames command-line flags, and field names inside strings, by the maps beside it; run after rename.py."""
import re, subprocess, sys
from pathlib import Path
ROOT = Path(sys.argv[1])
maps = Path(__file__).parent / "maps"
attr = {}
for m in maps.glob("*.map"):
    for line in m.read_text().splitlines():
        mm = re.match(r"([\w.]+):(\w+)\.(\w+) -> (\w+)$", line.split("#")[0].strip())
        if mm: attr.setdefault(mm[2], {})[mm[3]] = mm[4]
OBJ = ["SDS","SJC","ASD","CSD","CSM","DDS","PDS","ESD","VSD","FVSD","DisBack","ISM","TSM","SDI","NFSD","RegionSDS","RFDS","RFDSRev","BSD","PGSB"]
def merged(names):
    out = {}
    for n in names:
        for k, v in attr.get(n, {}).items(): out.setdefault(k, v)
    out.pop("about", None); out.pop("of", None)
    return out
obj = merged(OBJ) | {"rescale": "guidance_rescale", "scale": "guidance_scale"}
groups = {"scene": merged(["Splats","Nerf","Solid","Picture"]), "objective": obj, "orbit": merged(["Orbit"]), "mesh": merged(["Meshing"]),
  "times": merged(["Falling","Dropping","Linear","SquareRoot","DreamTime"]), "limits": merged(["Limits"]), "extras": merged(["Extras"]), "critic": {k: v for k, v in attr["LoRA"].items()}, "model": {}}
run = attr["RunConfig"]
run = {k: v for k, v in run.items() if k != "asked"}
special = {"part": "region", "stand": None}
def conv(m):
    dashes, group, sep, field = m[1], m[2], m[3], m[4]
    g = run.get(group.replace("-", "_"), group.replace("-", "_"))
    if field is None:
        if group == "part": return dashes + "region"
        if group == "stand": return dashes + "origin"
        if group in ("image","source","model","mesh","orbit","extras","times","limits","negative","direction","debias","views","accumulate"): return dashes + g.replace("_", "-")
        return m[0]
    no = "no-" if field.startswith(("no-", "no_")) else ""
    f = field[3:] if no else field
    nf = groups.get(group, {}).get(f.replace("-", "_"))
    if group not in groups and group not in run: return m[0]
    return dashes + g.replace("_", "-") + sep + no + (nf.replace("_", "-") if nf else f)
FLAG = re.compile(r"(?<![\w-])(--)(scene|objective|orbit|mesh|times|limits|extras|critic|negative|image|source|model|direction|debias|views|accumulate|part|stand)(\.)?((?<=\.)[\w-]+)?(?![\w-])")
DOT = re.compile(r"(?<=[\"'])(scene|objective|orbit|mesh|times|limits|extras|critic)\.([a-z_]+)(?=[\"'])")
def dot(m):
    g = run.get(m[1], m[1]); nf = groups[m[1]].get(m[2], m[2])
    return f"{g}.{nf}"
snake = {}
for n in ["Splats","Nerf","Solid","Picture","RunConfig","Extras","Limits","Orbit","Meshing","LoRA","Falling","Dropping","DreamTime"] + OBJ:
    for k, v in attr.get(n, {}).items():
        if "_" in k and k not in ("of_latents","of_picture") and not k.startswith("_"): snake[k] = v
snake.pop("max_count", None); snake["max_count"] = "cap_max"
SN = re.compile(r"(?<![\w.-])(" + "|".join(sorted(snake, key=len, reverse=True)) + r")(?![\w(])")
files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
for name in files:
    p = ROOT / name
    if not p.is_file() or p.suffix not in {".py", ".md", ".js", ".html", ".toml", ""}: continue
    if name.startswith("CHANGELOG"): continue
    try: t = p.read_text()
    except UnicodeDecodeError: continue
    n = FLAG.sub(conv, t)
    n = DOT.sub(dot, n)
    if p.suffix == ".py":
        n = re.sub(r"(\b\w+) is \{self\.(\w+)(![rs])?(:[^}]*)?\}", lambda m: f"{m[2]} is {{self.{m[2]}{m[3] or ''}{m[4] or ''}}}", n)
        import io, tokenize as tk
        starts = [0]
        for L in n.splitlines(keepends=True): starts.append(starts[-1] + len(L))
        out = []; last = 0
        for tok in tk.generate_tokens(io.StringIO(n).readline):
            if tok.type in (tk.STRING, tk.COMMENT, getattr(tk, "FSTRING_MIDDLE", -1)):
                a = starts[tok.start[0]-1] + tok.start[1]; b = starts[tok.end[0]-1] + tok.end[1]
                out.append(n[last:a]); out.append(SN.sub(lambda m: snake[m[1]], n[a:b])); last = b
        out.append(n[last:]); n = "".join(out)
    if n != t: p.write_text(n)
