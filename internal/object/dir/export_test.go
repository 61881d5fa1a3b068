package dir

// Full is full, for its test.
var Full = full
