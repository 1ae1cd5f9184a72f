"""Opens an exported journal with Optuna: check_optuna.py JOURNAL. Prints one JSON object."""

import json
import sys
import warnings

warnings.filterwarnings("ignore")
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = JournalStorage(JournalFileBackend(sys.argv[1]))
study = optuna.load_study(study_name=None, storage=storage)
study.trials_dataframe() if "pandas" in sys.modules else None
print(
    json.dumps(
        {
            "name": study.study_name,
            "directions": [direction.name for direction in study.directions],
            "metrics": study.metric_names,
            "best": sorted(trial.user_attrs["id"] for trial in study.best_trials),
            "trials": [
                {
                    "state": trial.state.name,
                    "values": trial.values,
                    "params": trial.params,
                    "constraints": trial.system_attrs.get("constraints"),
                    "id": trial.user_attrs["id"],
                    "seconds": trial.duration.total_seconds(),
                }
                for trial in study.trials
            ],
        }
    )
)
