// Package post is how a test tells its inner shim what to post to the runtimes'
// endpoint.
package post

// The call, whose request is a BytesValue with the body, and the environment variable
// with the endpoint's URL.
const (
	Service = "shimtrace.test.Inner"
	Method  = "Post"
	URLEnv  = "INNER_ENDPOINT"
)
