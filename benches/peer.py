"""The other side of `visage bench --against-pytorch`: the same work in PyTorch, as its users write it.

Started by Visage, which says the name of a measure on standard input and reads the seconds of one
round on standard output. The network is the definition in tests/golden/openface.py, made lean (see
Lean), or the ONNX file that Visage exports.

forward         a batch in inference mode, channels_last, batch normalisation folded
embed           picture files to embeddings: a DataLoader whose workers stay, batches of 64
...-16          the same under bfloat16 autocast (OpenVINO: its own bfloat16)
...-plain       the same with PyTorch's own LocalResponseNorm, as most people leave it
...-onnxruntime, ...-openvino    the same batches through the exported network
step            one forward pass of the batch, batch-hard mined in tensors, channels_last, bfloat16
                autocast where asked for, fused Adam: a loop that somebody has tuned
step-original   three forward passes per triplet in float32, as the published notebook has it, through
                the definition as it is
classifier      a linear layer on the frozen trunk, which sees every picture in every epoch
...-compiled    with torch.compile
cold            a process of its own: a face to its embedding and a linear layer's probabilities
"""

import argparse
import concurrent.futures
import functools
import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import time

import torch
import torch.fx.experimental.optimization
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.nn.utils.fusion import fuse_conv_bn_eval

from openface import Net

MARGIN = 0.2


def network(weights):
    net = Net()
    net.load_state_dict(load_file(weights), strict=True)
    return net.eval()  # running statistics, as Visage fine-tunes


class Lean(torch.nn.Module):
    """The same network as its users write it: L2 pooling computed once, nothing padded that needs no
    padding. And with `band` as somebody does who has looked at a profile: local response
    normalisation as a 1x1 convolution with a band of ones, instead of torch.nn.LocalResponseNorm's
    average over five dimensions."""

    def __init__(self, net, band):
        super().__init__()
        self.net, self.band = net, band
        for channels in (64, 192):
            band = torch.ones(channels, channels).tril(2).triu(-2)
            self.register_buffer(f"band{channels}", band[:, :, None, None])

    def lrn(self, x):
        if not self.band:
            return self.net.lrn(x)
        energy = F.conv2d(x * x, getattr(self, f"band{x.shape[1]}"))
        return x * (1 + 1e-4 / 5 * energy).pow(-0.75)

    def block(self, block, x):
        rows, outputs = block.seq_list, []
        for row in rows[: block.towers]:
            y = F.relu(getattr(row, "2_bn")(getattr(row, "1_conv")(x)))
            outputs.append(F.relu(getattr(row, "5_bn")(getattr(row, "4_conv")(y))))
        if isinstance(block.pool, torch.nn.MaxPool2d):
            y = block.pool(x)
        else:
            y = (F.avg_pool2d(x * x, 3, 3) * 9).clamp_min(1e-12).sqrt()
        if block.pooled:
            row = rows[block.towers]
            y = F.relu(getattr(row, "3_bn")(getattr(row, "2_conv")(y)))
        outputs.append(y)
        if block.plain:
            row = rows[block.towers + 1]
            outputs.append(F.relu(getattr(row, "2_bn")(getattr(row, "1_conv")(x))))
        side = max(y.shape[-1] for y in outputs)
        for n, y in enumerate(outputs):
            short = side - y.shape[-1]
            if short:
                low, high = short // 2, short - short // 2
                outputs[n] = F.pad(y, (low, high, low, high))
        return torch.cat(outputs, 1)

    def forward(self, x):
        net = self.net
        x = F.relu(net.layer2(net.layer1(x)))
        x = self.lrn(F.max_pool2d(x, 3, 2, 1))
        x = F.relu(net.layer7(net.layer6(x)))
        x = F.relu(net.layer10(net.layer9(x)))
        x = F.max_pool2d(self.lrn(x), 3, 2, 1)
        for n in (14, 15, 16, 17, 18, 19, 21):
            x = self.block(getattr(net, f"layer{n}"), x)
        x = net.layer25(F.avg_pool2d(x, 3).flatten(1))
        return x / torch.sqrt((x * x).sum(1, keepdim=True) + 1e-6)


def lean(weights, band=True):
    net = network(weights)
    own = Lean(net, band)
    with torch.no_grad():
        picture = torch.rand(2, 3, 96, 96)
        assert torch.allclose(own(picture), net(picture), atol=1e-5), "the lean network is another"
    return own.to(memory_format=torch.channels_last)


def folded(own):
    """Batch normalisation in the weights of the convolution before it."""
    pairs = {"layer1": "layer2", "layer6": "layer7", "layer9": "layer10"}
    inside = {"1_conv": "2_bn", "4_conv": "5_bn", "2_conv": "3_bn"}
    for module in own.net.modules():
        for conv, norm in (pairs | inside).items():
            if hasattr(module, conv) and hasattr(module, norm):
                both = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                setattr(module, conv, both)
                setattr(module, norm, torch.nn.Identity())
    return own.to(memory_format=torch.channels_last)


def batch_hard(embeddings, labels):
    """Mean of relu(hardest positive - hardest negative + margin) over squared distances."""
    squares = embeddings.square().sum(1)
    distances = (squares[:, None] + squares[None] - 2 * embeddings @ embeddings.T).clamp_min(0)
    same = labels[:, None] == labels[None]
    itself = torch.eye(len(labels), dtype=torch.bool)
    far = distances.masked_fill(~same | itself, float("-inf")).amax(1)
    near = distances.masked_fill(same, float("inf")).amin(1)
    return F.relu(far - near + MARGIN).mean()


def decode(path, side):
    import numpy
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    picture = picture.resize((side, side), Image.BILINEAR, (left, top, left + short, top + short))
    return numpy.array(picture)  # a copy that torch may write to


class Files(torch.utils.data.Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return torch.from_numpy(decode(self.paths[index], 96)).permute(2, 0, 1)


def batches(paths, workers):
    """Batches of bytes, as often as it is iterated; the workers stay between."""
    return torch.utils.data.DataLoader(
        Files(paths), batch_size=64, num_workers=workers, persistent_workers=workers > 0
    )


def onnxruntime_network(flags):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = flags.threads
    session = onnxruntime.InferenceSession("network.onnx", options, ["CPUExecutionProvider"])
    return lambda pictures: session.run(None, {"pictures": pictures.numpy()})[0]


def openvino_network(flags, half):
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": flags.threads,
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
    }
    model = openvino.Core().compile_model("network.onnx", "CPU", settings)
    return lambda pictures: model([pictures.numpy()])[0]


def inference(flags):
    """forward and embed, by whoever is there: makers by name."""

    @functools.cache
    def net(band):
        return folded(lean(flags.weights, band))

    def pytorch(half, band=True):
        def run(pictures):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return net(band)(pictures.contiguous(memory_format=torch.channels_last))

        return run

    ways = {"": lambda: pytorch(False), "-16": lambda: pytorch(True)}
    ways["-plain"] = lambda: pytorch(False, band=False)
    ways["-16-plain"] = lambda: pytorch(True, band=False)
    if has("onnxruntime"):
        ways["-onnxruntime"] = lambda: onnxruntime_network(flags)
    if has("openvino"):
        ways["-openvino"] = lambda: openvino_network(flags, False)
        ways["-16-openvino"] = lambda: openvino_network(flags, True)

    @functools.cache
    def loader():
        return batches(flags.pictures_to_load, flags.threads)

    def forward(make, memory_format):
        run, pictures = make(), torch.rand(flags.batch, 3, 96, 96)
        pictures = pictures.contiguous(memory_format=memory_format)
        return lambda: run(pictures)

    def embed(make):
        run = make()
        return lambda: [run(batch.float() / 255) for batch in loader()]

    known = {}
    for suffix, make in ways.items():
        is_exported = suffix.endswith(("-onnxruntime", "-openvino"))  # they would copy it in every round
        memory_format = torch.contiguous_format if is_exported else torch.channels_last
        known["forward" + suffix] = functools.partial(forward, make, memory_format)
        known["embed" + suffix] = functools.partial(embed, make)
    return known


def has(package):
    return importlib.util.find_spec(package) is not None


def versions():
    names = {"pytorch": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}
    return {
        name: importlib.metadata.version(package) for name, package in names.items() if has(package)
    }


def training(flags, run, parameters, pictures):
    """A step of a tuned loop, to be run again and again."""
    labels = torch.arange(flags.batch) // flags.pictures
    optimizer = torch.optim.Adam(parameters, lr=6e-5, fused=True)

    def round():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=flags.bf16):
            embeddings = run(pictures)
        batch_hard(embeddings.float(), labels).backward()
        optimizer.step()

    return round


def measures(flags):
    """What makes each measure ready, by name."""
    pictures = torch.rand(flags.batch, 3, 96, 96)
    laid_out = pictures.contiguous(memory_format=torch.channels_last)

    def step(band=True):
        tuned = lean(flags.weights, band)
        return training(flags, tuned, tuned.parameters(), laid_out)

    def original():
        plain = network(flags.weights)
        optimizer = torch.optim.Adam(plain.parameters(), lr=6e-5)
        triplet = torch.nn.TripletMarginLoss(MARGIN)

        def round():
            optimizer.zero_grad()
            anchor, positive, negative = (plain(pictures) for _ in range(3))
            triplet(anchor, positive, negative).backward()
            optimizer.step()

        return round

    def mine():
        many = F.normalize(torch.randn(flags.mined, 128))
        owners = torch.arange(flags.mined) // 4

        def round():
            with torch.no_grad():
                batch_hard(many, owners)

        return round

    def load():
        def round():
            with concurrent.futures.ThreadPoolExecutor(flags.loaders) as pool:
                list(pool.map(lambda path: decode(path, 96), flags.pictures_to_load))

        return round

    def classifier():
        frozen = folded(lean(flags.weights))
        taught = torch.arange(flags.taught * flags.batch) % 5

        def round():
            head = torch.nn.Linear(128, 5)
            optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
            for _ in range(flags.epochs):
                for batch in taught.split(flags.batch):
                    with torch.no_grad():
                        features = frozen(laid_out)
                    optimizer.zero_grad(set_to_none=True)
                    F.cross_entropy(head(features), batch).backward()
                    optimizer.step()

        return round

    own = {"step": step, "step-original": original, "mine": mine, "load": load}
    own["step-plain"] = functools.partial(step, band=False)
    return own | {"classifier": classifier} | inference(flags)


class Pooled(torch.nn.Module):
    """A network of torchvision without its classifier: the average of its last map, of length 1."""

    def __init__(self, features, relu):
        super().__init__()
        self.features, self.relu = features, relu

    def forward(self, x):
        x = self.features(x)
        x = F.relu(x) if self.relu else x
        return F.normalize(x.mean((2, 3)))


def dlib_block(block, x):
    """The block as somebody would tune it: a plain sum where the shapes agree, else the smaller one padded."""
    y = block.conv2(F.relu(block.conv1(x)))
    if block.stride == 2:
        x = F.avg_pool2d(x, 2, 2)
        (c, h, w), (own, high, wide) = x.shape[1:], y.shape[1:]
        x = F.pad(x, (0, max(wide - w, 0), 0, max(high - h, 0), 0, max(own - c, 0)))
        y = F.pad(y, (0, max(w - wide, 0), 0, max(h - high, 0)))
    elif x.shape[1] < y.shape[1]:
        x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
    return F.relu(y + x)


def other(name):
    """Another backbone, with random weights, which cost what others cost."""
    if name == "dlib-resnet":
        import dlib_resnet

        dlib_resnet.Block.forward = dlib_block
        return dlib_resnet.Net()
    if name == "facenet":
        from facenet_pytorch import InceptionResnetV1

        return InceptionResnetV1(pretrained=None)
    import torchvision

    if name == "inception-v3":
        net = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False)
        net.fc, net.dropout = torch.nn.Identity(), torch.nn.Identity()
        return net
    maker = getattr(torchvision.models, name.replace("-", "_"), None)
    if maker is None:
        sys.exit(f"--backbone {name}: neither torchvision nor facenet-pytorch has it")
    return Pooled(maker(weights=None).features, relu=name.startswith("densenet"))


def other_measures(flags):
    pictures = torch.rand(flags.batch, 3, flags.side, flags.side)
    pictures = pictures.contiguous(memory_format=torch.channels_last)

    def net():
        return other(flags.backbone).eval().to(memory_format=torch.channels_last)

    def forward(half, compiled):
        run = net()
        if compiled:
            run = torch.compile(run)
        else:
            # Normalisation into the convolution before it, where there is one and the network can be traced.
            try:
                run = torch.fx.experimental.optimization.fuse(run).to(memory_format=torch.channels_last)
            except Exception as error:  # whatever a tracer meets
                print(f"peer: normalisation is not folded ({error})"[:200], file=sys.stderr)

        def round():
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                run(pictures)

        return round

    def step(compiled):
        own = net()
        return training(flags, torch.compile(own) if compiled else own, own.parameters(), pictures)

    def exported(make):
        run, contiguous = make(), pictures.contiguous()
        return lambda: run(contiguous)

    makers = {"step": functools.partial(step, False), "step-compiled": functools.partial(step, True)}
    for half in (False, True):
        name = "forward-16" if half else "forward"
        makers[name] = functools.partial(forward, half, False)
        makers[f"{name}-compiled"] = functools.partial(forward, half, True)
        makers[f"{name}-openvino"] = functools.partial(exported, lambda half=half: openvino_network(flags, half))
    makers["forward-onnxruntime"] = functools.partial(exported, lambda: onnxruntime_network(flags))
    return makers


def main():
    options = argparse.ArgumentParser()
    options.add_argument("weights", type=pathlib.Path)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--loaders", type=int, default=1)
    options.add_argument("--batch", type=int, default=30)
    options.add_argument("--pictures", type=int, default=6)
    options.add_argument("--mined", type=int, default=2048)
    options.add_argument("--taught", type=int, default=4)
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--bf16", action="store_true")
    options.add_argument("--backbone", default="openface")
    options.add_argument("--side", type=int, default=96)
    options.add_argument("--list", type=pathlib.Path)
    options.add_argument("--cold", type=pathlib.Path)
    flags = options.parse_args()
    torch.set_num_threads(flags.threads)
    if flags.cold:
        picture = torch.from_numpy(decode(flags.cold, 96)).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            embedding = network(flags.weights)(picture)
            print(torch.nn.Linear(128, 5)(embedding).softmax(1).max().item())
        return
    flags.pictures_to_load = flags.list.read_text().split("\n") if flags.list else []
    of_openface = flags.backbone == "openface"
    makers, ready = measures(flags) if of_openface else other_measures(flags), {}
    print(json.dumps(versions()), flush=True)
    for line in sys.stdin:
        name, rounds = line.split()
        if name not in ready:
            ready[name] = makers[name]()
        start = time.perf_counter()
        for _ in range(int(rounds)):
            ready[name]()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
