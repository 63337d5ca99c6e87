// Package metering is the domain of marketmeter: usage record groups and their lifecycle, the
// usage metering config and its merge, the rules that new usage must meet, and the errors a
// client may read.
//
// It imports the standard library and a decimal type and knows neither HTTP nor DynamoDB.
// Rules cite their source: a page of the public API's reference ("API reference: ...") or the
// marketplace's own.
package metering
