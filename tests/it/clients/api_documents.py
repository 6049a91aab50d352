"""schemathesis on the server's own OpenAPI documents: requests made from them, answers judged by them.

The arguments are a kubeconfig and the documents to try, each with a pattern for its paths. Run with PYTHONPATH set.
"""

import base64
import json
import os
import ssl
import subprocess
import sys
import urllib.request

import yaml

# Broken answers, not refusals: what is valid by a schema may still be invalid to Kubernetes, whose documents say little of its rules.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

# What keeps requests from leading nowhere, or from never ending.
CONFIG = """
[parameters]
"path.namespace" = "default"
"path.name" = "thing"
"query.watch" = false
"query.timeoutSeconds" = 5
"""

HOOKS = '''
import schemathesis

@schemathesis.hook
def filter_case(context, case):
    """Upstream answers 500 to an apply whose fields are none of its type, and so does this server: no fault to be found here."""
    return case.media_type != "application/apply-patch+yaml"
'''


def main(kubeconfig, seed, examples, documents):
    with open(kubeconfig) as file:
        config = yaml.safe_load(file)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    files = {"ca": cluster["certificate-authority-data"], "cert": user["client-certificate-data"], "key": user["client-key-data"]}
    for name, data in files.items():
        with open(f"{name}.pem", "wb") as file:
            file.write(base64.b64decode(data))
    context = ssl.create_default_context(cafile="ca.pem")
    context.load_cert_chain("cert.pem", "key.pem")
    with open("schemathesis.toml", "w") as file:
        file.write(CONFIG)
    with open("hooks.py", "w") as file:
        file.write(HOOKS)
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": os.environ["PYTHONPATH"] + os.pathsep + os.getcwd()}
    for document in documents:
        path, _, pattern = document.partition("=")
        with urllib.request.urlopen(f"{cluster['server']}/openapi/v3/{path}", context=context) as answer:
            body = json.load(answer)
        name = path.replace("/", "_") + ".json"
        with open(name, "w") as file:
            json.dump(body, file)
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", name, "--url", cluster["server"], "--no-color", "--phases", "fuzzing",
            "--checks", CHECKS, "--seed", seed, "--max-examples", examples, "--generation-deterministic",
            "--tls-verify", "ca.pem", "--request-cert", "cert.pem", "--request-cert-key", "key.pem", "--request-timeout", "20", "--request-retries", "2",
            "--suppress-health-check", "all", "--warnings", "off", "--no-shrink", "--continue-on-failure",
            "--include-path-regex", pattern, "--exclude-path-regex", "/(exec|attach|portforward|proxy|log|binding|eviction|token)",
        ]
        ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if ran.returncode != 0:
            print(ran.stdout)
            raise SystemExit(f"{path}: what is answered is not what is documented (seed {seed})")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
