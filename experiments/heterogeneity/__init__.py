"""Accuracy of the worst and of the mean agent, by algorithm and by how far the data is from iid."""
