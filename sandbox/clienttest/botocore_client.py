"""botocore meters to the sandbox: the happy path of both integrations, and each documented failure."""

import datetime

import botocore.exceptions
import botocore.session
from botocore.config import Config
from sandbox_control import URL, control, equal, fault, quantities

HOUR = datetime.datetime(2026, 11, 18, 12, tzinfo=datetime.timezone.utc)
LICENCE = "arn:aws:license-manager::294406891311:license:l-1"


def client(region="us-east-1"):
    return botocore.session.Session().create_client(
        "meteringmarketplace", region_name=region, endpoint_url=URL + "/aws", aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="any", aws_session_token="any", config=Config(retries={"total_max_attempts": 1}))


aws = client()


def usage(**changes):
    record = {"Timestamp": HOUR, "Dimension": "requests", "QuantityAsDecimal": "17.42", "CustomerAWSAccountId": "111122223333", "LicenseArn": LICENCE}
    record.update(changes)
    return {name: value for name, value in record.items() if value is not None}


def legacy(**changes):
    return usage(**{"CustomerAWSAccountId": None, "LicenseArn": None, "QuantityAsDecimal": None, "Quantity": 3, "CustomerIdentifier": "cust-1", **changes})


def meter(*records, **more):
    return aws.batch_meter_usage(UsageRecords=list(records), **more)


def statuses(response):
    return [r["Status"] for r in response["Results"]]


def refused(name, call, **arguments):
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        equal(error.response["Error"]["Code"], name)
        if name not in ("ValidationException",):  # which is of the protocol, not of the model
            equal(type(error).__name__, name)
        if not error.response["Error"]["Message"]:
            raise AssertionError(f"{name} has no message")
        return
    raise AssertionError(f"{name} was not raised")


# The happy path.
first = meter(usage(), usage(Dimension="gb", QuantityAsDecimal="0.000001"))
equal(statuses(first), ["Success", "Success"])
equal(first["UnprocessedRecords"], [])
equal(first["Results"][0]["UsageRecord"], usage())  # with the timestamp as it was
equal(bool(first["Results"][0]["MeteringRecordId"]), True)
equal(statuses(meter(legacy(), ProductCode="prod-1")), ["Success"])
allocated = usage(Timestamp=HOUR - datetime.timedelta(hours=1), UsageAllocations=[
    {"AllocatedUsageQuantityAsDecimal": "17", "Tags": [{"Key": "team", "Value": "a"}]}, {"AllocatedUsageQuantityAsDecimal": "0.42"}])
equal(statuses(meter(allocated)), ["Success"])
equal(quantities(), ["17.42", "0.000001", "3", "17.42"])

# Statuses.
equal(statuses(meter(usage())), ["Success"])
equal(statuses(meter(usage(QuantityAsDecimal="18"))), ["DuplicateRecord"])
equal(statuses(meter(legacy(CustomerIdentifier="cust-2"), ProductCode="prod-1")), ["CustomerNotSubscribed"])
fault(marketplace="aws", fault="unprocessed", records=[0])
response = meter(usage(Timestamp=HOUR - datetime.timedelta(hours=2)))
equal(response["Results"], [])
equal(statuses(meter(*response["UnprocessedRecords"])), ["Success"])

# Failures of the whole request.
for name, record, more in [
    ("TimestampOutOfBoundsException", usage(Timestamp=HOUR - datetime.timedelta(days=1)), {}),
    ("InvalidUsageDimensionException", usage(Dimension="nothing"), {}),
    ("InvalidLicenseException", usage(LicenseArn=LICENCE + "x"), {}),
    ("InvalidProductCodeException", legacy(), {"ProductCode": "prod-9"}),
    ("InvalidProductCodeException", usage(), {"ProductCode": "prod-1"}),
    ("InvalidCustomerIdentifierException", legacy(CustomerIdentifier="cust-9"), {"ProductCode": "prod-1"}),
    ("InvalidTagException", usage(UsageAllocations=[{"AllocatedUsageQuantityAsDecimal": "17.42", "Tags": [{"Key": "ä", "Value": "b"}]}]), {}),
    ("InvalidUsageAllocationsException", usage(UsageAllocations=[{"AllocatedUsageQuantityAsDecimal": "17"}]), {}),
    ("ValidationException", usage(Quantity=1), {}),
    ("ValidationException", usage(QuantityAsDecimal="1.0000001"), {}),
]:
    refused(name, aws.batch_meter_usage, UsageRecords=[record], **more)
refused("ValidationException", aws.batch_meter_usage, UsageRecords=[usage()] * 26)
fault(marketplace="aws", fault="throttled")
refused("ThrottlingException", aws.batch_meter_usage, UsageRecords=[usage()])
fault(marketplace="aws", fault="serverError")
refused("InternalServiceErrorException", aws.batch_meter_usage, UsageRecords=[usage()])
refused("DisabledApiException", client("ap-south-1").batch_meter_usage, UsageRecords=[usage()])

# Broken connections and responses; each time the record was accepted or not, as the fault says. botocore does not notice
# a body that is no JSON: the response then has neither Results nor UnprocessedRecords.
for kind, accepted in [("lost", True), ("reset", False), ("cut", True), ("malformed", True), ("contentType", True)]:
    before = len(quantities())
    fault(marketplace="aws", fault=kind)
    try:
        response = meter(usage(Timestamp=HOUR - datetime.timedelta(hours=3 + before)))
    except botocore.exceptions.HTTPClientError:
        equal(kind in ("lost", "reset", "cut"), True)
    else:
        equal(kind in ("cut", "malformed", "contentType"), True)
        equal([name for name in response if name != "ResponseMetadata"], [])
    equal(len(quantities()) - before, int(accepted))

# ResolveCustomer.
equal({k: v for k, v in aws.resolve_customer(RegistrationToken="tok-1").items() if k != "ResponseMetadata"}, {
    "CustomerIdentifier": "cust-1", "CustomerAWSAccountId": "111122223333", "ProductCode": "prod-1", "LicenseArn": LICENCE, "Metadata": {"AgreementId": "agmt-1"}})
refused("InvalidTokenException", aws.resolve_customer, RegistrationToken="tok-9")
refused("ExpiredTokenException", aws.resolve_customer, RegistrationToken="tok-old")

bill = control("GET", "/bill")
equal([line["records"] for line in bill["lines"] if line["dimension"] == "gb"], [1])
print("botocore", botocore.__version__, "is content")
