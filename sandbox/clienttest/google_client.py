"""Google's own client reports to the sandbox: both ways to a token, check and report, and each documented failure."""

import os

import google.auth
import google.auth.aws
import google.auth.exceptions
import google.oauth2.service_account
import googleapiclient.discovery
import googleapiclient.errors
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sandbox_control import URL, control, equal, fault, quantities

SERVICE = "meter.endpoints.seller.cloud.goog"
ROBOT = "robot@seller.iam.gserviceaccount.com"
AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/aws"
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def by_key(email=ROBOT):
    return google.oauth2.service_account.Credentials.from_service_account_info(
        {"client_email": email, "private_key": KEY, "token_uri": URL + "/gcp/token"}, scopes=SCOPES)


def by_federation(**changes):
    os.environ.update(AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="any", AWS_REGION="us-east-1")
    return google.auth.aws.Credentials.from_info({
        "type": "external_account", "audience": AUDIENCE, "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
        "token_url": URL + "/gcp/v1/token",
        "service_account_impersonation_url": f"{URL}/gcp/v1/projects/-/serviceAccounts/{ROBOT}:generateAccessToken",
        "credential_source": {"environment_id": "aws1",
                              "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"},
        **changes}, scopes=SCOPES)


def services(credentials):
    return googleapiclient.discovery.build(
        "servicecontrol", "v1", credentials=credentials, client_options={"api_endpoint": URL + "/gcp/"}, static_discovery=True).services()


api = services(by_key())


def operation(name, value="150", **changes):
    return {"operationId": name, "operationName": "Hourly Usage Report", "consumerId": "project_number:1", "startTime": "2026-11-18T11:00:00Z",
            "endTime": "2026-11-18T12:00:00Z",
            "metricValueSets": [{"metricName": SERVICE + "/requests", "metricValues": [{"int64Value": value}]}], **changes}


def report(*operations, through=None):
    return (through or api).report(serviceName=SERVICE, body={"operations": list(operations)}).execute(num_retries=0)


def codes(response):
    return {e["operationId"]: e["status"]["code"] for e in response.get("reportErrors", [])}


def refused(status, call):
    try:
        call()
    except googleapiclient.errors.HttpError as error:
        equal(int(error.resp.status), status)
        if not error.reason:
            raise AssertionError(f"{status} has no message")
        return
    raise AssertionError(f"{status} was not raised")


def check(name, **changes):
    body = {k: v for k, v in operation(name, **changes).items() if k != "userLabels"}
    return api.check(serviceName=SERVICE, body={"operation": body}).execute(num_retries=0)


# The happy path: check, then report.
equal(check("op-1").get("checkErrors", []), [])
equal(codes(report(operation("op-1", userLabels={"cloudmarketplace.googleapis.com/resource_name": "db"}))), {})
equal(codes(report(operation("op-2", "7"), through=services(by_federation()))), {})
equal(quantities(), ["150", "7"])

# The same operationId is deduplicated.
equal(codes(report(operation("op-1"))), {})
equal(quantities(), ["150", "7"])

# checkErrors.
for consumer, code in [("project_number:2", "BILLING_DISABLED"), ("project_number:3", "SERVICE_NOT_ACTIVATED"), ("project_number:4", "PROJECT_DELETED")]:
    equal([e["code"] for e in check("op", consumerId=consumer)["checkErrors"]], [code])
fault(marketplace="gcp", fault="checkError", code="SERVICE_STATUS_UNAVAILABLE")
equal([e["code"] for e in check("op")["checkErrors"]], ["SERVICE_STATUS_UNAVAILABLE"])

# reportErrors: those failed, the rest is done.
equal(codes(report(operation("good", "1"), operation("gauge", metricValueSets=[{"metricName": SERVICE + "/users", "metricValues": [{"int64Value": "1"}]}]),
                   operation("double", metricValueSets=[{"metricName": SERVICE + "/requests", "metricValues": [{"doubleValue": 1.5}]}]),
                   operation("inactive", consumerId="project_number:2"), operation("future", endTime="2026-11-18T13:00:00Z"))),
      {"gauge": 3, "double": 3, "inactive": 5, "future": 3})
for code in [4, 8, 13, 14, 7]:
    fault(marketplace="gcp", fault="unprocessed", records=[0], code=str(code))
    equal(codes(report(operation("again"))), {"again": code})
equal(codes(report(operation("again", "2"))), {})
equal(quantities(), ["150", "7", "1", "2"])

# Failures of the whole request.
twice = [{"metricName": SERVICE + "/requests", "metricValues": [{"int64Value": "1"}, {"int64Value": "2"}]}]
refused(400, lambda: report(operation("good-2"), operation("twice", metricValueSets=twice)))
refused(400, lambda: report(operation("large", userLabels={"a": "x" * 1_000_000})))
refused(400, lambda: api.check(serviceName=SERVICE, body={"operation": operation("op", userLabels={"a": "b"})}).execute())
refused(403, lambda: api.report(serviceName="nowhere", body={"operations": [operation("op")]}).execute())
fault(marketplace="gcp", fault="throttled")
refused(429, lambda: report(operation("op")))
fault(marketplace="gcp", fault="serverError", status=503)
refused(503, lambda: report(operation("op")))
fault(marketplace="gcp", fault="serverError", accepted=True)
refused(500, lambda: report(operation("done", "3")))
equal(quantities(), ["150", "7", "1", "2", "3"])

# Tokens.
for broken in [by_key("nobody@seller.iam.gserviceaccount.com"), by_federation(audience=AUDIENCE + "x"),
               by_federation(service_account_impersonation_url=URL + "/gcp/v1/projects/-/serviceAccounts/nobody:generateAccessToken")]:
    try:
        report(operation("op"), through=services(broken))
    except google.auth.exceptions.GoogleAuthError:
        continue
    raise AssertionError("a token was given out")
# A token that has expired: the client gets a new one by itself, since it is told 401.
control("PUT", "/clock", {"advance": "2h"})
equal(codes(report(operation("after", "4"))), {})
equal(quantities()[-1], "4")
print("google-api-python-client is content")
