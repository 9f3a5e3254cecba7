"""The part of glTF 2.0's JSON that is read, as types: what a document holds is checked against them before any use.

Only the shapes of values are checked here; whether an index exists is checked where it is followed. Names of glTF.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Size = Annotated[int, Meta(ge=0, le=2**40)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Number = Annotated[float, Meta(ge=-1e30, le=1e30)]
Two = Annotated[list[Number], Meta(min_length=2, max_length=2)]
Three = Annotated[list[Number], Meta(min_length=3, max_length=3)]
Four = Annotated[list[Number], Meta(min_length=4, max_length=4)]
Sixteen = Annotated[list[Number], Meta(min_length=16, max_length=16)]


class Buffer(Struct):
    byteLength: Size
    uri: str | None = None


class Packed(Struct):
    """EXT_meshopt_compression."""

    buffer: Index
    byteLength: Size
    byteStride: Annotated[int, Meta(ge=1, le=256)]
    count: Index
    mode: str
    byteOffset: Size = 0
    filter: str = "NONE"


class ViewExtensions(Struct):
    ext: Packed | None = field(default=None, name="EXT_meshopt_compression")
    khr: Packed | None = field(default=None, name="KHR_meshopt_compression")


class BufferView(Struct):
    buffer: Index
    byteLength: Size
    byteOffset: Size = 0
    byteStride: Annotated[int, Meta(ge=1, le=256)] | None = None
    extensions: ViewExtensions | None = None


class SparseIndices(Struct):
    bufferView: Index
    componentType: int
    byteOffset: Size = 0


class SparseValues(Struct):
    bufferView: Index
    byteOffset: Size = 0


class Sparse(Struct):
    count: Count
    indices: SparseIndices
    values: SparseValues


class Accessor(Struct):
    componentType: int
    count: Count
    type: str
    bufferView: Index | None = None
    byteOffset: Size = 0
    normalized: bool = False
    sparse: Sparse | None = None


class Draco(Struct):
    bufferView: Index
    attributes: dict[str, Index]


class PrimitiveExtensions(Struct):
    draco: Draco | None = field(default=None, name="KHR_draco_mesh_compression")


class Primitive(Struct):
    attributes: dict[str, Index]
    indices: Index | None = None
    material: Index | None = None
    mode: Annotated[int, Meta(ge=0, le=6)] = 4
    targets: list[dict[str, Index]] = []
    extensions: PrimitiveExtensions | None = None


class Mesh(Struct):
    primitives: list[Primitive]
    weights: list[Number] = []


class Instancing(Struct):
    attributes: dict[str, Index]


class NodeExtensions(Struct):
    instancing: Instancing | None = field(default=None, name="EXT_mesh_gpu_instancing")


class Node(Struct):
    children: list[Index] = []
    mesh: Index | None = None
    skin: Index | None = None
    matrix: Sixteen | None = None
    translation: Three | None = None
    rotation: Four | None = None
    scale: Three | None = None
    weights: list[Number] = []
    extensions: NodeExtensions | None = None


class Skin(Struct):
    joints: list[Index]
    inverseBindMatrices: Index | None = None


class Scene(Struct):
    nodes: list[Index] = []


class Image(Struct):
    uri: str | None = None
    bufferView: Index | None = None
    mimeType: str | None = None


class Source(Struct):
    source: Index | None = None


class TextureExtensions(Struct):
    webp: Source | None = field(default=None, name="EXT_texture_webp")
    avif: Source | None = field(default=None, name="EXT_texture_avif")
    dds: Source | None = field(default=None, name="MSFT_texture_dds")
    basisu: Source | None = field(default=None, name="KHR_texture_basisu")


class Texture(Struct):
    source: Index | None = None
    sampler: Index | None = None
    extensions: TextureExtensions | None = None


class Sampler(Struct):
    magFilter: int | None = None
    wrapS: int = 10497
    wrapT: int = 10497


class Transform(Struct):
    """KHR_texture_transform."""

    offset: Two = field(default_factory=lambda: [0.0, 0.0])
    rotation: Number = 0.0
    scale: Two = field(default_factory=lambda: [1.0, 1.0])
    texCoord: Index | None = None


class InfoExtensions(Struct):
    transform: Transform | None = field(default=None, name="KHR_texture_transform")


class TextureInfo(Struct):
    index: Index
    texCoord: Index = 0
    extensions: InfoExtensions | None = None


class Metallic(Struct):
    baseColorFactor: Four | None = None
    baseColorTexture: TextureInfo | None = None
    metallicFactor: Number | None = None
    roughnessFactor: Number | None = None
    metallicRoughnessTexture: TextureInfo | None = None


class Glossy(Struct):
    """KHR_materials_pbrSpecularGlossiness."""

    diffuseFactor: Four | None = None
    diffuseTexture: TextureInfo | None = None
    specularFactor: Three | None = None
    glossinessFactor: Number = 1.0
    specularGlossinessTexture: TextureInfo | None = None


class Strength(Struct):
    emissiveStrength: Number = 1.0


class MaterialExtensions(Struct):
    glossy: Glossy | None = field(default=None, name="KHR_materials_pbrSpecularGlossiness")
    strength: Strength | None = field(default=None, name="KHR_materials_emissive_strength")


class Material(Struct):
    pbrMetallicRoughness: Metallic | None = None
    normalTexture: TextureInfo | None = None
    emissiveTexture: TextureInfo | None = None
    emissiveFactor: Three | None = None
    alphaMode: str = "OPAQUE"
    alphaCutoff: Number = 0.5
    doubleSided: bool = False
    extensions: MaterialExtensions | None = None


class Asset(Struct):
    version: str
    minVersion: str | None = None
    extras: Any = None


class Said(Struct):
    extras: Any = None


class Head(Struct):
    """As much as tells what a file is."""

    asset: Said | None = None
    extensionsUsed: list[str] = []


class Document(Struct):
    asset: Asset
    scene: Index | None = None
    scenes: list[Scene] = []
    nodes: list[Node] = []
    meshes: list[Mesh] = []
    skins: list[Skin] = []
    materials: list[Material] = []
    textures: list[Texture] = []
    samplers: list[Sampler] = []
    images: list[Image] = []
    accessors: list[Accessor] = []
    bufferViews: list[BufferView] = []
    buffers: list[Buffer] = []
    extensionsUsed: list[str] = []
    extensionsRequired: list[str] = []
