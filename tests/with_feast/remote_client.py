"""Ask a running service with Feast's own remote client, in Feast's own environment; print JSON.

python remote_client.py http://127.0.0.1:6566 FOLDER
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Bool, Float64, Int64, String

address, folder = sys.argv[1], Path(sys.argv[2])
(folder / "feature_store.yaml").write_text(
    f"""project: switched
registry: {folder / "registry.db"}
provider: local
online_store:
    type: remote
    path: {address}
entity_key_serialization_version: 3
"""
)
store = FeatureStore(repo_path=str(folder))
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)


def view(name: str, **types: object) -> FeatureView:
    source = FileSource(name=f"{name}_source", path=f"{name}.parquet", timestamp_field="ts")
    fields = [Field(name="user_id", dtype=Int64)]
    fields += [Field(name=each, dtype=dtype) for each, dtype in types.items()]
    return FeatureView(
        name=name, entities=[user], schema=fields, source=source, ttl=timedelta(days=3)
    )


spend = view("spend", amount=Float64, visits=Int64, tier=String)
everything = view("everything", int64=Int64, float64=Float64, string=String, bool=Bool)
service = FeatureService(name="spending_v1", features=[spend[["amount", "visits"]]])
store.apply([user, spend, everything, service])

users = [{"user_id": each} for each in (1, 5, 6, 7, 8)]
names = ["spend:amount", "spend:tier"]
answer = store.get_online_features(features=names, entity_rows=users)
full = store.get_online_features(
    features=["spend:amount", "everything:int64"], entity_rows=users, full_feature_names=True
)
whole = store.get_online_features(features=service, entity_rows=users)
exact = store.get_online_features(
    features=[f"everything:{name}" for name in ("int64", "float64", "string", "bool")],
    entity_rows=[{"user_id": each} for each in (1, 2, 3, 4)],
)
statuses = {
    name: [FieldStatus.Name(status) for status in result.statuses]
    for name, result in zip(
        answer.proto.metadata.feature_names.val, answer.proto.results, strict=True
    )
}
print(  # noqa: T201 - read by the check
    json.dumps(
        {
            "values": answer.to_dict(),
            "statuses": statuses,
            "full": sorted(full.to_dict()),
            "service": whole.to_dict(),
            "exact": exact.to_dict(),
        }
    )
)
