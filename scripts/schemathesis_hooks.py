"""What schemathesis.toml lets through is held to its reasons here."""

import re

import schemathesis

DIGITS = r"does not fit: a quantity has at most 19 digits|a number has at most 38 significant digits"
ONCE = r"there may be at most one entry a partner"
CONDITIONS = r"If-Match is |If-None-Match is "

# By operation, what a 400 may say to a request that the description allows.
REASONS = {
    "listUsageRecordGroups": r"at most one of partner, productId, entitlementId and buyerId may be|the start must not be after the end"
    rf"|{DIGITS}|cursor is |offset and cursor are given",
    "deleteUsageRecordGroup": r"only a group that is CREATED or INVALID can be deleted",
    "batchValidateUsageRecordGroups": DIGITS,
    "getUsageMeteringConfigInfo": CONDITIONS,
    "replaceUsageMeteringConfigInfo": rf"{DIGITS}|{ONCE}|{CONDITIONS}",
    "updateUsageMeteringConfigInfo": rf"{DIGITS}|{ONCE}|{CONDITIONS}|: it must have 1 to 255 characters|convertionMultiplier is ",
}


@schemathesis.check
def refused_for_a_reason_that_is_known(ctx, response, case):
    operation = case.operation.definition.raw["operationId"]
    text = response.text
    if response.status_code == 500:
        assert text.startswith('"validation failed for usage record group: index '), f"a failure of the service: {text}"
    if response.status_code == 400 and case.meta is not None and case.meta.generation.mode.is_positive:
        assert re.search(REASONS.get(operation, "$^"), text), f"refused, though the description allows it: {text}"
