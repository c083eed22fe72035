#!/bin/bash
# The event is standard input, standard output the answer, standard error the log.
set -eu
name=$(sed -n 's/.*"name" *: *"\([^"]*\)".*/\1/p')
echo "greeting $name as $SCF_REQUEST_ID" >&2
echo "{\"message\": \"hello, $name!\"}"
