"""What schemathesis.toml lets through is held to its reasons here."""

import re

import schemathesis

DIGITS = r"does not fit: a quantity has at most 19 digits|a number has at most 38 significant digits"
ONCE = r"there may be at most one entry a partner"
CONDITIONS = r"If-Match is |If-None-Match is "
LIST = r"the start must not be after the end|cursor is |offset and cursor are given"
FORMS = r": it must be |: it must have |: it must not hold |is not a member of a connection|is an identifier of|is of another integration|is there beside"
USAGE = rf"entitlementID is |with an Idempotency-Key the service makes the ids|every quantity is 0|are both (empty|filled)|{DIGITS}|{FORMS}"

# By operation, what a 400 may say to a request that the description allows.
REASONS = {
    "listUsageRecordGroups": r"at most one of partner, productId, entitlementId and buyerId may be|the start must not be after the end"
    rf"|{DIGITS}|cursor is |offset and cursor are given",
    "listUsageRecordReports": LIST,
    "listUsageMeteringDailyRecords": LIST,
    "deleteUsageRecordGroup": r"only a group that is CREATED or INVALID can be deleted",
    "batchValidateUsageRecordGroups": DIGITS,
    "getUsageMeteringConfigInfo": CONDITIONS,
    "getEntitlement": CONDITIONS,
    "getConnection": CONDITIONS,
    "deleteEntitlement": CONDITIONS,
    "deleteConnection": CONDITIONS,
    "putEntitlement": rf"{DIGITS}|{CONDITIONS}|{FORMS}|: each key may be there once",
    "putConnection": rf"{CONDITIONS}|{FORMS}|(roleArn|externalID|tenantID|secretArn|workloadIdentity|endpoint)",
    "createBillableMetric": rf"{DIGITS}|{FORMS}|is missing|is empty|is no number|: each name may be there once|must have 1 to",
    "updateBillableMetric": FORMS,
    "reportUsageRecordGroup": USAGE,
    "batchCreateUsageRecordGroups": USAGE,
    "retryUsageRecordGroup": r"only a group that is INVALID or REPORT_FAILED can be retried",
    "replaceUsageMeteringConfigInfo": rf"{DIGITS}|{ONCE}|{CONDITIONS}",
    "updateUsageMeteringConfigInfo": rf"{DIGITS}|{ONCE}|{CONDITIONS}|: it must have 1 to 255 characters|convertionMultiplier is ",
}


@schemathesis.check
def refused_for_a_reason_that_is_known(ctx, response, case):
    operation = case.operation.definition.raw["operationId"]
    text = response.text
    if response.status_code == 500:
        assert text.startswith('"validation failed for usage record group: index '), f"a failure of the service: {text}"
    if operation == "batchValidateUsageRecordGroups" and response.status_code == 200 and case.meta is not None and case.meta.generation.mode.is_negative:
        assert '"valid":false' in text, f"accepted, though the description forbids it: {text}"
    if response.status_code == 400 and case.meta is not None and case.meta.generation.mode.is_positive:
        assert re.search(REASONS.get(operation, "$^"), text), f"refused, though the description allows it: {text}"
