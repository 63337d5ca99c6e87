package metering

func (t *Terms) convert(g *NewGroup) (records, origin map[string]Quantity, billable []BillableRecord, problems []Problem) {
	return nil, nil, nil, g.negatives()
}
