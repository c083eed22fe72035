module hanshu/runtimes/conformance

go 1.26

require (
	github.com/aws/aws-lambda-go v1.55.1
	hanshu/runtimes/go v0.0.0
)

replace hanshu/runtimes/go => ../../go
