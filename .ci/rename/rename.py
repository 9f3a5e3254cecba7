"""Type-aware renamer for the whole tree, driven by map files.

Map lines:
  module OLD.DOTTED -> NEW.DOTTED             moves a module (git mv) and rewrites imports, dotted strings, paths
  pkg.mod:Name -> New                         global function, class, constant, type alias
  pkg.mod:Class.attr -> new                   field or method (also in subclasses; keyword arguments of constructors)
  *.attr -> new                               attribute of any class of ours (structural implementers included)
  pkg.mod:func(param) -> new                  parameter or local; keyword at call sites too. Class.method(param) likewise
  *.method(param) -> new                      parameter of that method name in any class of ours
Old names are those of the tree before the run.
"""
from __future__ import annotations
import ast, re, subprocess, sys, json, shutil
from collections import defaultdict
from pathlib import Path

from mypy import build, options as mo, nodes as N, types as T
from mypy.config_parser import parse_config_file
from mypy.find_sources import create_source_list

ROOT = Path(sys.argv[1]).resolve()
(ROOT / "build").mkdir(exist_ok=True)
MAPS = sorted((Path(__file__).parent / "maps").glob("*.map"))
APPLY = "--apply" in sys.argv
PACKAGES = ("guidance", "renderers", "configs", "sds3d", "app")
TREES = PACKAGES + ("tests", "benchmarks", "examples", "integrations")

modules: dict[str, str] = {}
filemoves: dict[str, str] = {}
flags: dict[str, str] = {}
globals_: dict[str, str] = {}          # "mod.Name" -> New
attrs: dict[tuple[str, str], str] = {} # ("mod.Class", attr) -> new
anyattr: dict[str, str] = {}
params: dict[tuple[str, str], str] = {}  # ("mod.func" or "mod.Class.method", param)
anyparams: dict[tuple[str, str], str] = {}
problems: list[str] = []

for m in MAPS:
    for i, line in enumerate(m.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line: continue
        try:
            left, new = (s.strip() for s in line.split("->"))
        except ValueError:
            problems.append(f"{m.name}:{i}: unreadable: {line}"); continue
        if left.startswith("module "):
            modules[left[7:].strip()] = new; continue
        if left.startswith("file "):
            filemoves[left[5:].strip()] = new; continue
        if left.startswith("flag "):
            flags[left[5:].strip()] = new; continue
        mm = re.fullmatch(r"(.+)\((\w+)\)", left)
        if mm:
            f, p = mm.groups()
            if f.startswith("*."): anyparams[f[2:], p] = new
            else: params[f.replace(":", "."), p] = new
            continue
        if left.startswith("*."): anyattr[left[2:]] = new; continue
        if ":" not in left: problems.append(f"{m.name}:{i}: no colon: {line}"); continue
        mod, name = left.split(":")
        if "." in name:
            c, a = name.rsplit(".", 1); attrs[f"{mod}.{c}", a] = new
        else: globals_[f"{mod}.{name}"] = new
used: set = set()

files = sorted(p for t in TREES if (ROOT / t).exists() for p in (ROOT / t).rglob("*.py") if ".venv" not in p.parts)

def modname(p: Path) -> str:
    rel = p.relative_to(ROOT).with_suffix("")
    parts = list(rel.parts)
    if parts[-1] == "__init__": parts.pop()
    return ".".join(parts)

opt = mo.Options()
opt.python_version = (3, 11)
import os
os.chdir(ROOT)
parse_config_file(opt, lambda: None, "pyproject.toml", sys.stdout, sys.stderr)
opt.strict_optional = True
opt.export_types = True
opt.preserve_asts = True
opt.check_untyped_defs = True
opt.warn_unreachable = False
opt.namespace_packages = True
opt.explicit_package_bases = True
opt.cache_dir = str(Path(sys.argv[1]).resolve() / "build" / "rename-cache")
opt.incremental = True
opt.sqlite_cache = False
opt.exclude = []
# own modules always fresh
for d in Path(opt.cache_dir).glob("*"):
    for t in TREES:
        if (d / t).exists(): shutil.rmtree(d / t)
        for f in d.glob(f"{t}.*"): f.unlink()
sources = [build.BuildSource(str(p), modname(p)) for p in files]
result = build.build(sources, opt)
print("mypy errors:", len(result.errors)); (ROOT / "build" / "rename-mypy_errors.txt").write_text("\n".join(result.errors))
types = result.types
edits: dict[Path, dict[tuple[int, int], str]] = defaultdict(dict)

def ours(fullname: str) -> bool:
    return fullname.split(".")[0] in TREES

class File:
    def __init__(self, path: Path):
        self.path = path; self.src = path.read_bytes()
        self.starts = [0]
        for i, b in enumerate(self.src):
            if b == 10: self.starts.append(i + 1)
        self.tree = ast.parse(self.src)
    def off(self, line: int, col: int) -> int: return self.starts[line - 1] + col
    def put(self, a: int, b: int, old: str, new: str):
        got = self.src[a:b].decode()
        if got != old:
            problems.append(f"{self.path}: at {a} expected {old!r} got {got!r}"); return
        edits[self.path][a, b] = new

def classes_of(t) -> list[N.TypeInfo]:
    t = T.get_proper_type(t)
    if isinstance(t, T.Instance): return [t.type]
    if isinstance(t, T.UnionType): return [c for i in t.items for c in classes_of(i)]
    if isinstance(t, T.TupleType): return [t.partial_fallback.type]
    if isinstance(t, T.TypeType): return classes_of(t.item)
    if isinstance(t, T.TypeVarType): return classes_of(t.upper_bound)
    if isinstance(t, T.CallableType) and t.is_type_obj():
        return [t.type_object()]
    if isinstance(t, T.Overloaded) and t.is_type_obj():
        return [t.type_object()]
    return []

def attr_new(info: N.TypeInfo, name: str) -> str | None:
    found = None
    for base in info.mro:
        if (base.fullname, name) in attrs:
            used.add((base.fullname, name)); found = attrs[base.fullname, name]
    if found: return found
    if name in anyattr and any(ours(b.fullname) and name in b.names for b in info.mro):
        used.add(name); return anyattr[name]
    return None

def method_key(info: N.TypeInfo, method: str, param: str) -> str | None:
    for base in info.mro:
        if (f"{base.fullname}.{method}", param) in params:
            used.add((f"{base.fullname}.{method}", param)); return params[f"{base.fullname}.{method}", param]
    if (method, param) in anyparams and any(ours(b.fullname) and method in b.names for b in info.mro):
        used.add((method, param)); return anyparams[method, param]
    return None

known_attr_names = {a for _, a in attrs} | set(anyattr)
unresolved: list[str] = []

SKIP = {"node", "info", "type", "unanalyzed_type", "names", "metadata", "definition", "imports", "alias_deps", "defn", "mro", "impl_type", "target_node", "type_args", "original_def", "expanded", "plugin_deps", "ignored_lines", "original_type"}
_attrs_cache: dict = {}
def node_attrs(cls):
    if cls not in _attrs_cache:
        names = []
        for c in cls.__mro__:
            names += [a for a in getattr(c, "__mypyc_attrs__", ()) if a not in SKIP and not a.startswith("__")]
        _attrs_cache[cls] = list(dict.fromkeys(names))
    return _attrs_cache[cls]

class Walker:
    def visit(self, root):
        stack = [root]; seen = set()
        order = []
        while stack:
            n = stack.pop()
            if id(n) in seen: continue
            seen.add(id(n)); order.append(n)
            for a in node_attrs(type(n)):
                try: v = getattr(n, a)
                except AttributeError: continue
                self.push(v, stack)
        for n in order:
            if isinstance(n, N.FuncDef): self.visit_func_def(n)
            elif isinstance(n, N.NameExpr): self.visit_name_expr(n)
            elif isinstance(n, N.MemberExpr): self.visit_member_expr(n)
            elif isinstance(n, N.CallExpr): self.visit_call_expr(n)
    def push(self, v, stack):
        if isinstance(v, N.Node) and not isinstance(v, (N.TypeInfo, N.SymbolTableNode)): stack.append(v)
        elif isinstance(v, (list, tuple)):
            for i in v: self.push(i, stack)

class Visitor(Walker):
    def __init__(self, f: File, tree: N.MypyFile):
        self.f = f; self.mod = tree
        self.calls = {(n.lineno, n.col_offset): n for n in ast.walk(f.tree) if isinstance(n, ast.Call)}
        # several calls may start at one place (chained): key with end too
        self.calls2 = {(n.lineno, n.col_offset, n.end_lineno, n.end_col_offset): n for n in ast.walk(f.tree) if isinstance(n, ast.Call)}
        self.skipnames: set[tuple[int, int]] = set()
    def visit_func_def(self, o: N.FuncDef):
        if o.info:
            new = attr_new(o.info, o.name)
            if new: self.defname(o.line, rf"def\s+({re.escape(o.name)})\b", o.name, new)
    def defname(self, line, pat, old, new):
        a = self.f.starts[line - 1]; seg = self.f.src[a:a + 400].decode(errors="replace")
        m = re.search(pat, seg)
        # seg decoded: offsets are byte offsets for ascii def lines
        if m: self.f.put(a + len(seg[:m.start(1)].encode()), a + len(seg[:m.end(1)].encode()), old, new)
        else: problems.append(f"{self.f.path}:{line} no def {old}")
    def visit_name_expr(self, o: N.NameExpr):
        n = o.node
        if isinstance(n, N.Var) and n.info and o.kind == N.MDEF:
            new = attr_new(n.info, o.name)
            if new:
                a = self.f.off(o.line, o.column); self.f.put(a, a + len(o.name.encode()), o.name, new)
                self.skipnames.add((o.line, o.column))
        elif o.kind == N.LDEF and isinstance(n, N.Var):
            self.skipnames.add((o.line, o.column))
    def visit_member_expr(self, o: N.MemberExpr):
        end = self.f.off(o.end_line, o.end_column) if o.end_line else None
        def put(new): self.f.put(end - len(o.name.encode()), end, o.name, new)
        n = o.node
        if isinstance(o.expr, N.RefExpr) and isinstance(o.expr.node, N.MypyFile):
            full = f"{o.expr.node.fullname}.{o.name}"
            if n is not None and getattr(n, "fullname", None): full = n.fullname
            if full in globals_: used.add(full); put(globals_[full])
            elif isinstance(n, N.MypyFile) and n.fullname in modules: put(modules[n.fullname].rsplit(".", 1)[1])
            return
        infos = classes_of(types[o.expr]) if o.expr in types else None
        if not infos and isinstance(o.expr, N.RefExpr) and isinstance(o.expr.node, N.TypeInfo): infos = [o.expr.node]
        if not infos and isinstance(n, (N.Var, N.FuncDef, N.Decorator)) and getattr(n, "info", None): infos = [n.info]
        if infos:
            news = {attr_new(i, o.name) for i in infos} - {None}
            if len(news) == 1: put(news.pop())
            elif len(news) > 1: problems.append(f"{self.f.path}:{o.line} ambiguous {o.name} -> {news}")
        elif o.name in known_attr_names:
            unresolved.append(f"{self.f.path.relative_to(ROOT)}:{o.line}:{self.f.src[self.f.starts[o.line-1]:self.f.starts[o.line] if o.line < len(self.f.starts) else None].decode().strip()[:110]}  [{o.name}]")
    def visit_call_expr(self, o: N.CallExpr):
        call = self.calls2.get((o.line, o.column, o.end_line, o.end_column))
        if call is None: return
        kws = {k.arg: k for k in call.keywords if k.arg}
        if not kws and not (o.args and len(o.args) > 1): return
        for name, k in kws.items():
            new = self.kwarg(o, name)
            if new:
                a = self.f.off(k.lineno, k.col_offset); self.f.put(a, a + len(name.encode()), name, new)
        # setattr/getattr strings
        cname = o.callee.name if isinstance(o.callee, N.RefExpr) else ""
        if cname in ("setattr", "getattr", "hasattr", "delattr") and len(o.args) > 1 and isinstance(o.args[1], N.StrExpr):
            target, s = o.args[0], o.args[1]
            new = None
            if isinstance(target, N.RefExpr) and isinstance(target.node, N.MypyFile):
                new = globals_.get(f"{target.node.fullname}.{s.value}")
                sym = target.node.names.get(s.value)
                if not new and sym and sym.fullname in globals_: new = globals_[sym.fullname]
            else:
                infos = classes_of(types[target]) if target in types else []
                if isinstance(target, N.RefExpr) and isinstance(target.node, N.TypeInfo): infos = [target.node]
                news = {attr_new(i, s.value) for i in infos} - {None}
                if len(news) == 1: new = news.pop()
            if new:
                a = self.f.off(s.line, s.column); raw = self.f.src[a:a + len(s.value) + 2].decode()
                if raw[1:-1] == s.value: self.f.put(a + 1, a + 1 + len(s.value), s.value, new)
    def kwarg(self, o: N.CallExpr, name: str) -> str | None:
        c = o.callee
        node = c.node if isinstance(c, N.RefExpr) else None
        if isinstance(node, N.Decorator): node = node.func
        if isinstance(node, N.FuncDef) and node.fullname == "dataclasses.replace" or (isinstance(c, N.RefExpr) and c.fullname == "dataclasses.replace"):
            infos = classes_of(types[o.args[0]]) if o.args and o.args[0] in types else []
            news = {attr_new(i, name) for i in infos} - {None}
            if len(news) > 1: problems.append(f"{self.f.path}:{o.line} ambiguous replace {name}")
            if not infos and name in known_attr_names: unresolved.append(f"{self.f.path.relative_to(ROOT)}:{o.line}: replace(... {name}=)")
            return news.pop() if len(news) == 1 else None
        if isinstance(node, N.FuncDef) and not node.info:
            k = (node.fullname, name)
            if k in params: used.add(k); return params[k]
            return None
        infos = []
        if isinstance(node, N.TypeInfo): infos = [node]
        if not infos and c in types:
            t = T.get_proper_type(types[c])
            if isinstance(t, T.CallableType) and t.is_type_obj(): infos = [t.type_object()]
            elif isinstance(t, T.TypeType): infos = classes_of(t.item)
        if infos:
            for i in infos:
                new = attr_new(i, name) if "dataclass" in i.metadata or any("dataclass" in b.metadata for b in i.mro) else None
                new = new or method_key(i, "__init__", name)
                if not new and i.is_named_tuple: new = attr_new(i, name)
                if new: return new
            return None
        if isinstance(c, N.MemberExpr):
            inf = classes_of(types[c.expr]) if c.expr in types else []
            if isinstance(c.expr, N.RefExpr) and isinstance(c.expr.node, N.TypeInfo): inf = [c.expr.node]
            for i in inf:
                new = method_key(i, c.name, name)
                if new: return new
        if c in types:  # call of an instance: __call__
            for i in classes_of(types[c]):
                new = method_key(i, "__call__", name)
                if new: return new
        return None

for path in files:
    mod = modname(path)
    tree = result.files.get(mod)
    if tree is None:
        problems.append(f"{path}: no tree"); continue
    f = File(path)
    v = Visitor(f, tree)
    v.visit(tree)
    # globals by module symbol table, over ast names (annotations too)
    local: dict[str, str] = {}
    modalias: dict[str, str] = {}
    taken = {n.id for n in ast.walk(f.tree) if isinstance(n, ast.Name)} | {n.arg for n in ast.walk(f.tree) if isinstance(n, ast.arg)} | {n.name for n in ast.walk(f.tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    moved_names: dict[str, str] = {}
    for n in ast.walk(f.tree):
        if isinstance(n, ast.ImportFrom) and n.module:
            for a in n.names:
                full = f"{n.module}.{a.name}"
                if full in modules and a.asname is None: moved_names[a.name] = modules[full]
    alias: dict[str, str] = {}
    leafs = [x.rsplit(".", 1)[1] for x in moved_names.values()]
    for old, target in moved_names.items():
        parent, leaf = target.rsplit(".", 1)
        clash = leafs.count(leaf) > 1 or (leaf in taken and leaf != old) or leaf in tree.names and leaf != old
        alias[old] = f"{parent.rsplit('.', 1)[-1]}_{leaf}" if clash else leaf
    for name, sym in tree.names.items():
        full = sym.fullname
        if full in globals_ and full.rsplit(".", 1)[1] == name: local[name] = globals_[full]; used.add(full)
        if isinstance(sym.node, N.MypyFile) and sym.node.fullname in modules and sym.node.fullname.rsplit(".", 1)[-1] == name:
            new = alias.get(name, modules[sym.node.fullname].rsplit(".", 1)[1])
            if new != name: modalias[name] = new
    # function-level imports
    def names_in(node):
        for n in ast.walk(node):
            if isinstance(n, ast.ImportFrom) and n.module:
                for a in n.names:
                    full = f"{n.module}.{a.name}"
                    if full in globals_ and a.asname is None: local.setdefault(a.name, globals_[full])
                    if full in modules and a.asname is None and alias[a.name] != a.name: modalias.setdefault(a.name, alias[a.name])
    names_in(f.tree)
    both = {**local, **modalias}
    for n in ast.walk(f.tree):
        if isinstance(n, ast.Name) and n.id in both and (n.lineno, n.col_offset) not in v.skipnames:
            a = f.off(n.lineno, n.col_offset); f.put(a, a + len(n.id.encode()), n.id, both[n.id])
        elif isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) and n in f.tree.body and n.name in local and f"{mod}.{n.name}" in globals_:
            kw = "class" if isinstance(n, ast.ClassDef) else "def"
            v.defname(n.lineno, rf"{kw}\s+({re.escape(n.name)})\b", n.name, local[n.name])
        elif isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in tree.names and isinstance(tree.names[n.value.id].node, N.MypyFile):
            m0 = tree.names[n.value.id].node
            full = f"{m0.fullname}.{n.attr}"
            sym0 = m0.names.get(n.attr)
            if full not in globals_ and sym0 is not None and sym0.fullname in globals_: full = sym0.fullname
            if full in globals_ and full.rsplit(".", 1)[1] == n.attr:
                e = f.off(n.end_lineno, n.end_col_offset); f.put(e - len(n.attr), e, n.attr, globals_[full])
        elif isinstance(n, ast.Assign) and any(isinstance(x, ast.Name) and x.id == "__all__" for x in n.targets):
            for c in ast.walk(n.value):
                if isinstance(c, ast.Constant) and c.value in local:
                    a = f.off(c.lineno, c.col_offset); f.put(a + 1, a + 1 + len(c.value), c.value, local[c.value])
        elif isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in local and "\n" not in n.value:
            # string annotations / forward refs / __all__
            a = f.off(n.lineno, n.col_offset); raw = f.src[a:f.off(n.end_lineno, n.end_col_offset)].decode()
            if raw[1:-1] == n.value and n.value[0].isupper() and len(n.value) > 3 : unresolved.append(f"{path.relative_to(ROOT)}:{n.lineno}: string {raw}")
        elif isinstance(n, ast.ImportFrom) and any(f"{n.module}.{a.name}" in modules for a in n.names):
            groups: dict[str, list[str]] = {}
            for a in n.names:
                full = f"{n.module}.{a.name}"
                if full in modules:
                    parent, leaf = modules[full].rsplit(".", 1)
                    al = a.asname or alias[a.name]
                    groups.setdefault(parent, []).append(leaf if al == leaf else f"{leaf} as {al}")
                else:
                    nm = globals_.get(full, a.name)
                    groups.setdefault(modules.get(n.module, n.module), []).append(nm + (f" as {a.asname}" if a.asname else ""))
            ind = " " * n.col_offset
            text = f"\n{ind}".join(f"from {g} import {x}" for g, xs in groups.items() for x in xs)
            s0, e0 = f.off(n.lineno, n.col_offset), f.off(n.end_lineno, n.end_col_offset)
            edits[path][s0, e0] = text
        elif isinstance(n, ast.ImportFrom):
            m = n.module or ""
            for a in n.names:
                full = f"{m}.{a.name}"
                p0 = f.off(a.lineno, a.col_offset)
                if full in globals_:
                    f.put(p0, p0 + len(a.name.encode()), a.name, globals_[full]); used.add(full)
                elif full in modules:
                    newm, newn = modules[full].rsplit(".", 1)
                    if len(n.names) == 1:
                        s = f.off(n.lineno, n.col_offset) + len("from ")
                        f.put(s, s + len(m), m, newm); f.put(p0, p0 + len(a.name), a.name, newn)
                    else: problems.append(f"{path}:{n.lineno} import of several modules in one line, split it first")
            if m in modules:
                s = f.off(n.lineno, n.col_offset) + len("from ")
                f.put(s, s + len(m), m, modules[m])
        elif isinstance(n, ast.Import):
            for a in n.names:
                if a.name in modules:
                    p0 = f.off(a.lineno, a.col_offset); f.put(p0, p0 + len(a.name), a.name, modules[a.name])
    # names of own fields as strings where a method reads them by getattr(self, name)
    for c in [n for n in ast.walk(f.tree) if isinstance(n, ast.ClassDef)]:
        info = tree.names[c.name].node if c.name in tree.names else None
        if not isinstance(info, N.TypeInfo): continue
        for m0 in [x for x in c.body if isinstance(x, ast.FunctionDef)]:
            if not any(isinstance(q, ast.Call) and isinstance(q.func, ast.Name) and q.func.id == "getattr" and q.args and isinstance(q.args[0], ast.Name) and q.args[0].id == "self" for q in ast.walk(m0)): continue
            for q in ast.walk(m0):
                if isinstance(q, ast.Constant) and isinstance(q.value, str):
                    new = attr_new(info, q.value)
                    if new:
                        a = f.off(q.lineno, q.col_offset); raw = f.src[a:f.off(q.end_lineno, q.end_col_offset)].decode()
                        if raw[1:-1] == q.value: f.put(a + 1, a + 1 + len(q.value), q.value, new)
    # parameters and locals
    def walk(node, qual):
        for n in ast.iter_child_nodes(node):
            if isinstance(n, ast.ClassDef): walk(n, qual + [n.name])
            elif isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)):
                key = ".".join([mod, *qual, n.name])
                ren = {p: new for (k, p), new in params.items() if k == key}
                for p in ren: used.add((key, p))
                if qual:
                    sym = tree.names.get(qual[0])
                    if sym and isinstance(sym.node, N.TypeInfo) and len(qual) == 1:
                        for a in [*n.args.posonlyargs, *n.args.args, *n.args.kwonlyargs]:
                            new = method_key(sym.node, n.name, a.arg)
                            if new: ren[a.arg] = new
                if ren:
                    for q in ast.walk(n):
                        if isinstance(q, ast.arg) and q.arg in ren:
                            a = f.off(q.lineno, q.col_offset); f.put(a, a + len(q.arg), q.arg, ren[q.arg])
                        elif isinstance(q, ast.Name) and q.id in ren:
                            a = f.off(q.lineno, q.col_offset); f.put(a, a + len(q.id), q.id, ren[q.id])
                    doc = ast.get_docstring(n, clean=False)
                    if doc:
                        d = n.body[0].value; a = f.off(d.lineno, d.col_offset); b = f.off(d.end_lineno, d.end_col_offset)
                        seg = f.src[a:b].decode()
                        for old, new in ren.items():
                            for m in list(re.finditer(rf"`{old}`|(?m:^(\s+){old}:)", seg)):
                                i = m.start() + m.group().index(old)
                                f.put(a + len(seg[:i].encode()), a + len(seg[:i + len(old)].encode()), old, new)
                walk(n, qual + [n.name])
            elif not isinstance(n, (ast.Lambda,)): walk(n, qual)
    walk(f.tree, [])

count = sum(len(e) for e in edits.values())
print(f"{count} edits in {len(edits)} files; {len(problems)} problems; {len(unresolved)} unresolved")
allkeys = set(globals_) | set(attrs) | set(anyattr) | set(params) | set(anyparams)
(ROOT / "build" / "rename-unused.txt").write_text("\n".join(sorted(map(str, allkeys - used))))
(ROOT / "build" / "rename-problems.txt").write_text("\n".join(problems))
(ROOT / "build" / "rename-unresolved.txt").write_text("\n".join(unresolved))
if not APPLY: sys.exit()
for path, e in edits.items():
    src = path.read_bytes(); out = bytearray(); last = 0
    for (a, b), new in sorted(e.items()):
        if a < last: print("OVERLAP", path, a); continue
        out += src[last:a] + new.encode(); last = b
    out += src[last:]
    path.write_bytes(bytes(out))
# docstrings and comments: backticked global names that changed
_mods = sorted(modules, key=len, reverse=True)
_dotted = re.compile(r"(?<![\w./])(" + "|".join(re.escape(m) for m in _mods if "." in m and not m.endswith("__init__")) + r")(?!\w)(?!\.py\b)")
_paths = {m.replace(".", "/") + ".py": n.replace(".", "/") + ".py" for m, n in modules.items()} | filemoves
_path_re = re.compile(r"(?<![\w])(" + "|".join(re.escape(p) for p in sorted(_paths, key=len, reverse=True)) + r")(?!\w)")
def textual(text: str) -> str:
    text = _path_re.sub(lambda m: _paths[m[1]], text)
    text = _dotted.sub(lambda m: modules[m[1]], text)
    for old, new in sorted(flags.items(), key=lambda kv: -len(kv[0])):
        text = re.sub(rf"(?<![\w-]){re.escape(old)}(?![\w-])", new, text)
    return text
tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
for name in tracked:
    p = ROOT / name
    if not p.is_file() or p.suffix not in {".py", ".md", ".toml", ".txt", ".yaml", ".json", ".cpp", ".h", ".css", ".js", "", ".yml"} : continue
    if p.suffix == ".json" and p.stat().st_size > 500_000: continue
    try: t = p.read_text()
    except UnicodeDecodeError: continue
    if p.suffix == ".py":
        import io, tokenize as tk
        lines = t.splitlines(keepends=True); out = []; pos = (1, 0)
        starts = [0]
        for L in lines: starts.append(starts[-1] + len(L))
        last = 0
        fst = getattr(tk, "FSTRING_MIDDLE", -1)
        for tok in tk.generate_tokens(io.StringIO(t).readline):
            if tok.type in (tk.STRING, tk.COMMENT, fst):
                s0 = starts[tok.start[0] - 1] + tok.start[1]; e0 = starts[tok.end[0] - 1] + tok.end[1]
                out.append(t[last:s0]); out.append(textual(t[s0:e0])); last = e0
        out.append(t[last:]); n = "".join(out)
    else: n = textual(t)
    if n != t: p.write_text(n)
for old, new in modules.items():
    o = ROOT / (old.replace(".", "/") + ".py"); w = ROOT / (new.replace(".", "/") + ".py")
    if not o.exists(): print("NO FILE", o); continue
    w.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "mv", str(o), str(w)], cwd=ROOT, check=True)
for old, new in filemoves.items():
    o, w = ROOT / old, ROOT / new
    if not o.exists(): print("NO FILE", o); continue
    w.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "mv", str(o), str(w)], cwd=ROOT, check=True)
for t in PACKAGES:
    for d in (ROOT / t).rglob("*"):
        if d.is_dir() and any(d.glob("*.py")) and not (d / "__init__.py").exists():
            print("NEW PACKAGE", d.relative_to(ROOT)); (d / "__init__.py").write_text("")
print("applied")
