"""The other side of `make bench-serve`: a face-recognition service as users of FastAPI and facenet-pytorch
write it. MTCNN finds the faces, InceptionResnetV1 embeds them, and numpy takes the enrolled embedding with
the largest cosine. One process; FastAPI calls a plain function in a pool of threads.

    GALLERY=embeddings.npy NAMES=names.txt WEIGHTS=facenet.pt uvicorn serve_peer:app
"""

import os
import pathlib

import numpy as np
import torch
from facenet_pytorch import MTCNN, InceptionResnetV1
from fastapi import FastAPI, UploadFile
from PIL import Image

LEAST = 0.6  # cosine of a known face

app = FastAPI()
mtcnn = MTCNN(keep_all=True)
resnet = InceptionResnetV1().eval()
resnet.load_state_dict(torch.load(os.environ["WEIGHTS"], weights_only=True))
gallery = np.load(os.environ["GALLERY"])
names = pathlib.Path(os.environ["NAMES"]).read_text().splitlines()


@app.get("/ready")
def ready():
    return {"status": "ready"}


@app.post("/identify")
def identify(file: UploadFile):
    image = Image.open(file.file).convert("RGB")
    boxes, probabilities = mtcnn.detect(image)
    if boxes is None:
        return {"faces": []}
    with torch.inference_mode():
        embeddings = resnet(mtcnn.extract(image, boxes, None)).numpy()
    cosines = embeddings @ gallery.T
    best = cosines.argmax(axis=1)
    faces = zip(boxes.tolist(), probabilities.tolist(), best.tolist(), cosines.max(axis=1).tolist())
    return {
        "faces": [
            {"box": box, "detection": detection, "nearest": names[row], "cosine": cosine,
             "label": names[row] if cosine >= LEAST else None}
            for box, detection, row, cosine in faces
        ]
    }
