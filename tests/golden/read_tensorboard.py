"""Reads a log folder with TensorBoard itself and prints what it found as JSON.

`accumulator` is what TensorBoard's event reader returns; `served` is what its web application and
plugins answer to a browser, asked without a socket.
"""

import base64
import json
import sys

from tensorboard import default
from tensorboard import program
from tensorboard.backend import application
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.backend.event_processing.data_ingester import LocalDataIngester
from werkzeug.test import Client


def accumulated(folder):
    everything = dict.fromkeys(event_accumulator.DEFAULT_SIZE_GUIDANCE, 0)
    events = event_accumulator.EventAccumulator(folder, size_guidance=everything)
    events.Reload()
    tags = events.Tags()
    return {
        "file_version": events.file_version,
        "scalars": {
            tag: [[event.step, event.value] for event in events.Scalars(tag)]
            for tag in tags["scalars"]
        },
        "histograms": {
            tag: [[event.step, vars(event.histogram_value)] for event in events.Histograms(tag)]
            for tag in tags["histograms"]
        },
        "images": {
            tag: [
                {
                    "step": event.step,
                    "width": event.width,
                    "height": event.height,
                    "png": base64.b64encode(event.encoded_image_string).decode(),
                }
                for event in events.Images(tag)
            ]
            for tag in tags["images"]
        },
    }


def served(folder, run, projector_tensor):
    board = program.TensorBoard(plugins=default.get_plugins())
    board.configure(argv=["", "--logdir", folder, "--load_fast", "false", "--reload_interval", "0"])
    ingester = LocalDataIngester(board.flags)
    ingester.start()
    client = Client(
        application.TensorBoardWSGIApp(
            board.flags, board.plugin_loaders, ingester.data_provider, board.assets_zip_provider
        )
    )

    def get(plugin, route, **query):
        answer = client.get(f"/data/plugin/{plugin}/{route}", query_string=query)
        if answer.status_code != 200:
            sys.exit(f"{plugin}/{route} {query}: {answer.status} {answer.get_data(as_text=True)}")
        return answer

    found = {
        "runs": client.get("/data/runs").json,
        "text": get("text", "text", run=run, tag="note").json,
        "pr_curve": get("pr_curves", "pr_curves", run=run, tag="same face").json,
        "scalars": get("scalars", "scalars", run=run, tag="loss").json,
        "histograms": get("histograms", "histograms", run=run, tag="distance").json,
        "images": get("images", "images", run=run, tag="strip", sample=0).json,
        "projector_runs": get("projector", "runs").json,
        "tags": get("scalars", "tags").json,
    }
    sessions = {"startIndex": 0, "sliceSize": 10, "allowedStatuses": ["STATUS_SUCCESS"]}
    found["hparams"] = {
        "experiment": get("hparams", "experiment", request=json.dumps({})).json,
        "groups": get("hparams", "session_groups", request=json.dumps(sessions)).json,
    }
    key = found["images"][0]["query"].removeprefix("blob_key=")
    found["image"] = base64.b64encode(
        get("images", "individualImage", blob_key=key).get_data()
    ).decode()
    query = {"run": run, "name": projector_tensor}
    found["projector"] = {
        "config": get("projector", "info", run=run).json,
        "tensor": base64.b64encode(get("projector", "tensor", **query).get_data()).decode(),
        "metadata": get("projector", "metadata", **query).get_data(as_text=True),
        "sprite": base64.b64encode(
            get("projector", "sprite_image", **query).get_data()
        ).decode(),
    }
    return found


def main():
    folder, run = sys.argv[1:]
    print(
        json.dumps(
            {
                "accumulator": accumulated(f"{folder}/{run}"),
                "served": served(folder, run, "embeddings"),
            }
        )
    )


main()
