module hanshu/runtimes/conformance

go 1.24

require (
	github.com/aws/aws-lambda-go v1.54.0
	hanshu/runtimes/go v0.0.0
)

replace hanshu/runtimes/go => ../../go
